//! What is done with a bucket at a repository's beginning and end. Nothing here knows what a file holds.

use std::ops::ControlFlow;

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use formats::s3_conf::DEFAULT_REGION;

use super::S3Store;
use crate::error::{Result, StoreError};

impl S3Store {
    /// Makes the bucket; false if it is there already and this key may look at it.
    ///
    /// # Errors
    /// When it cannot be made, or is somebody else's.
    pub fn create_bucket(&self) -> Result<bool> {
        let bucket = &self.0.bucket;
        let name = &bucket.conf.bucket;
        let request = || bucket.client.head_bucket().bucket(name).send();
        if bucket.ask("HEAD", "", request)?.is_some() {
            return Ok(false);
        }
        // Amazon's first region is the one that is not named
        let region = bucket.conf.region.as_deref();
        let place = region
            .filter(|region| *region != DEFAULT_REGION)
            .map(|region| {
                let place = BucketLocationConstraint::from(region);
                let builder = CreateBucketConfiguration::builder();
                builder.location_constraint(place).build()
            });
        bucket.ask("CREATE", "", || {
            let request = bucket.client.create_bucket().bucket(name);
            request
                .set_create_bucket_configuration(place.clone())
                .send()
        })?;
        Ok(true)
    }

    /// Lets everybody read what is below the prefix, by a policy of the bucket, which replaces
    /// another that is there.
    ///
    /// # Errors
    /// When the server has no such policies, or does not let this key set one.
    pub fn let_everybody_read(&self) -> Result<()> {
        let bucket = &self.0.bucket;
        let (name, prefix) = (&bucket.conf.bucket, &bucket.prefix);
        let resource = format!("arn:aws:s3:::{name}/{prefix}*");
        let policy = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":{resource:?}}}]}}"#
        );
        let answer = bucket.ask("POLICY", "", || {
            let request = bucket.client.put_bucket_policy().bucket(name);
            request.policy(&policy).send()
        })?;
        match answer {
            Some(_) => Ok(()),
            None => Err(StoreError::Unsupported {
                place: self.0.place.clone(),
                action: "take a policy of its bucket",
            }),
        }
    }

    /// Visits every file below the prefix, whatever it is, by what follows the prefix, until the
    /// visitor has seen enough.
    ///
    /// # Errors
    /// Those of the visitor, and of listing.
    pub fn files(&self, visit: &mut dyn FnMut(&str) -> Result<ControlFlow<()>>) -> Result<()> {
        let mut token = None;
        loop {
            let page = self.0.bucket.list("", token)?;
            for (file, _) in &page.files {
                if visit(file)?.is_break() {
                    return Ok(());
                }
            }
            token = page.next;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// Removes a file by what follows the prefix, or does nothing.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn remove_file(&self, file: &str) -> Result<()> {
        self.0.known.clear();
        Ok(self.0.bucket.delete(file)?)
    }
}
