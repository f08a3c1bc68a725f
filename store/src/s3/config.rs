//! What `s3.conf` does not say and AWS's own configuration may: credentials, region, endpoint.
//!
//! The library looks where AWS's tools look: the environment, `~/.aws`, an instance's role.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};
use formats::s3_conf::{DEFAULT_REGION, S3Conf};

use super::connector::Connector;
use super::error::S3Error;

/// For the machine's own metadata service, should AWS's configuration be looked for there.
const STANDARD_WAIT: Duration = Duration::from_secs(5);

/// Fixed, so that a newer library changes nothing by itself.
pub(super) fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// The configuration's own key, or wherever AWS's tools find theirs; and the region.
pub(super) async fn credentials(conf: &S3Conf, connector: &Connector) -> Builder {
    let region = conf.region.clone().map(Region::new);
    let default = Region::from_static(DEFAULT_REGION);
    if let Some(key) = &conf.key {
        let key = Credentials::new(&key.id, &key.secret, None, None, "s3.conf");
        let builder = Builder::new().credentials_provider(key);
        return builder.region(region.unwrap_or(default));
    }
    let loader = aws_config::defaults(behavior()).http_client(connector.clone());
    let found = match region.clone() {
        Some(region) => loader.region(region).load().await,
        None => loader.load().await,
    };
    let region = region
        .or_else(|| found.region().cloned())
        .unwrap_or(default);
    Builder::from(&found).region(region)
}

/// The bucket of this name where AWS's own configuration has its buckets: at Amazon, if it does not say.
///
/// # Errors
/// [`S3Error::Start`].
pub fn standard_bucket(bucket: &str) -> Result<S3Conf, S3Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| S3Error::Start(Arc::new(e)))?;
    let connector =
        Connector::new(STANDARD_WAIT, 1, None).map_err(|e| S3Error::Start(Arc::new(e)))?;
    let loader = aws_config::defaults(behavior()).http_client(connector);
    let found = runtime.block_on(loader.load());
    let region = found
        .region()
        .map_or(DEFAULT_REGION, Region::as_ref)
        .to_owned();
    let own = found
        .endpoint_url()
        .map(|url| url.trim_end_matches('/').to_owned());
    let amazon = || format!("https://s3.{region}.amazonaws.com");
    let is_amazon = own.is_none();
    let endpoint = own.unwrap_or_else(amazon);
    let (https, host) = match endpoint.split_once("://") {
        Some((scheme, host)) => (scheme == "https", host),
        None => (true, endpoint.as_str()),
    };
    let place = S3Conf::of_place(
        host.to_owned(),
        https,
        bucket.to_owned(),
        Some(region.clone()),
    );
    Ok(S3Conf {
        // only Amazon's hosts are sure to have names for each bucket
        dns_buckets: is_amazon,
        ..place
    })
}
