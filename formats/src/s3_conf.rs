//! `s3.conf`: which bucket a repository's storage is in, and how it is reached.
//!
//! The file that `cvmfs_server mkfs -s` is given and that `CVMFS_UPSTREAM_STORAGE=S3,TMP,ALIAS@FILE`
//! names [CVMFS `upload_s3.cc:ParseSpoolerDefinition`]. It is written for a shell and read as
//! `server.conf` is ([`crate::server_conf`]), without one. Different from the official tools, the
//! two keys may be missing: then whoever opens the bucket finds credentials elsewhere.
//!
//! A secret never comes into an error or a debug output. Nothing here looks at the environment or at
//! another file.

use std::fmt;

use crate::server_conf::{ServerConf, ServerConfError};

/// The region that requests are signed for where none is given: stores that know no regions take it.
pub const DEFAULT_REGION: &str = "us-east-1";
/// `CVMFS_S3_TIMEOUT`, in seconds [CVMFS `upload_s3.h`, as the next two].
const DEFAULT_TIMEOUT_SECONDS: u64 = 60;
/// `CVMFS_S3_MAX_RETRIES`
const DEFAULT_RETRIES: u64 = 3;
/// `CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS`
const DEFAULT_CONNECTIONS: u64 = 16;
/// More would only open sockets: no store is faster for it, and each costs descriptors and memory.
const MAX_CONNECTIONS: u64 = 1024;
/// An hour of silence is no patience any more; and a duration must not overflow.
const MAX_TIMEOUT_SECONDS: u64 = 3600;
/// With the pauses between them, hours.
const MAX_RETRIES: u64 = 100;
/// Longest name of a bucket that any store allows.
const MAX_BUCKET_BYTES: usize = 255;

/// Why a bucket's configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum S3ConfError {
    /// A line or value.
    #[error(transparent)]
    Conf(#[from] ServerConfError),
    /// One of the two keys alone.
    #[error(
        "{present} is set and {missing} is not; set both, or neither to use the standard AWS credentials"
    )]
    LoneKey {
        /// The one that is there.
        present: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// Azure's own protocol.
    #[error(
        "CVMFS_S3_FLAVOR=azure: Azure Blob Storage does not speak S3, and prepub speaks nothing else; put an S3 gateway before it, or publish with cvmfs_server"
    )]
    Azure,
}

/// An access key and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its public name.
    pub id: String,
    /// What signs.
    pub secret: String,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({})", self.id)
    }
}

/// What everybody may do with an object that is stored: S3's canned access control lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CannedAcl {
    /// No header: what the bucket's own rules say.
    None,
    /// Its owner alone.
    Private,
    /// Everybody reads.
    #[default]
    PublicRead,
    /// Everybody reads and writes.
    PublicReadWrite,
    /// Whoever has an account reads.
    AuthenticatedRead,
    /// Amazon's machine images.
    AwsExecRead,
    /// The bucket's owner reads.
    BucketOwnerRead,
    /// The bucket's owner does everything.
    BucketOwnerFullControl,
}

impl CannedAcl {
    /// Names in `s3.conf`, and as a header. The official tool says `public-write` for what S3 calls
    /// `public-read-write` and sends it as it is; either is taken here.
    const NAMES: [(&str, Self); 9] = [
        ("", Self::None),
        ("private", Self::Private),
        ("public-read", Self::PublicRead),
        ("public-write", Self::PublicReadWrite),
        ("public-read-write", Self::PublicReadWrite),
        ("authenticated-read", Self::AuthenticatedRead),
        ("aws-exec-read", Self::AwsExecRead),
        ("bucket-owner-read", Self::BucketOwnerRead),
        ("bucket-owner-full-control", Self::BucketOwnerFullControl),
    ];

    /// The header's value; none: no header is sent.
    #[must_use]
    pub fn header(self) -> Option<&'static str> {
        let mut names = Self::NAMES.iter().rev();
        let (name, _) = names.find(|(_, acl)| *acl == self)?;
        Some(*name).filter(|name| !name.is_empty())
    }
}

/// A bucket and how to talk to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Conf {
    /// `CVMFS_S3_HOST` and `CVMFS_S3_PORT`: `host` or `host:port`.
    pub host: String,
    /// `CVMFS_S3_USE_HTTPS`
    pub https: bool,
    /// `CVMFS_S3_BUCKET`
    pub bucket: String,
    /// `CVMFS_S3_DNS_BUCKETS`: the bucket is part of the host's name, and of the path otherwise.
    pub dns_buckets: bool,
    /// `CVMFS_S3_ACCESS_KEY`, `CVMFS_S3_SECRET_KEY`; none: from wherever AWS's tools have theirs.
    pub key: Option<AccessKey>,
    /// `CVMFS_S3_REGION`; none: the store knows no regions.
    pub region: Option<String>,
    /// `CVMFS_S3_TIMEOUT`: silence after which a request has failed, in seconds.
    pub timeout_seconds: u64,
    /// `CVMFS_S3_MAX_RETRIES`: how often a request is made again.
    pub retries: u32,
    /// `CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS`
    pub connections: usize,
    /// `CVMFS_S3_PEEK_BEFORE_PUT`: it is asked whether an object is there before it is sent.
    pub peek: bool,
    /// `CVMFS_S3_X_AMZ_ACL`
    pub acl: CannedAcl,
    /// `CVMFS_S3_PROXY`
    pub proxy: Option<String>,
}

impl S3Conf {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`S3ConfError`]; the first thing that is missing or makes no sense.
    pub fn parse(bytes: &[u8]) -> Result<Self, S3ConfError> {
        let conf = ServerConf::parse(bytes)?;
        check_flavor(&conf)?;
        let bounded = |key: &'static str, default, range: std::ops::RangeInclusive<u64>, what| {
            let number = conf.scaled(key, default, 1)?;
            let fits = range.contains(&number);
            fits.then_some(number).ok_or_else(|| conf.bad(key, what))
        };
        let expected = "a number from 1 to 3600";
        let timeout = "CVMFS_S3_TIMEOUT";
        let timeout = bounded(
            timeout,
            DEFAULT_TIMEOUT_SECONDS,
            1..=MAX_TIMEOUT_SECONDS,
            expected,
        )?;
        let expected = "a number from 0 to 100";
        let retries = bounded(
            "CVMFS_S3_MAX_RETRIES",
            DEFAULT_RETRIES,
            0..=MAX_RETRIES,
            expected,
        )?;
        let connections = "CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS";
        let expected = "a number from 1 to 1024";
        let connections = bounded(
            connections,
            DEFAULT_CONNECTIONS,
            1..=MAX_CONNECTIONS,
            expected,
        )?;
        Ok(Self {
            host: host(&conf)?,
            https: switch(&conf, "CVMFS_S3_USE_HTTPS", false)?,
            bucket: bucket(&conf)?,
            // only the literal `false` counts
            dns_buckets: conf.value("CVMFS_S3_DNS_BUCKETS")? != Some("false"),
            key: access_key(&conf)?,
            region: region(&conf)?,
            timeout_seconds: timeout,
            retries: u32::try_from(retries).unwrap_or(u32::MAX),
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            peek: switch(&conf, "CVMFS_S3_PEEK_BEFORE_PUT", true)?,
            acl: acl(&conf)?,
            proxy: conf.value("CVMFS_S3_PROXY")?.map(str::to_owned),
        })
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.host)
    }

    /// Where everybody reads what is below `alias`, if everybody may [CVMFS
    /// `s3fanout.h:MkUrl`].
    #[must_use]
    pub fn url(&self, alias: &str) -> String {
        let Self { host, bucket, .. } = self;
        let scheme = if self.https { "https" } else { "http" };
        match self.dns_buckets {
            true => format!("{scheme}://{bucket}.{host}/{alias}"),
            false => format!("{scheme}://{host}/{bucket}/{alias}"),
        }
    }

    /// A file that says which bucket this is and leaves the rest to its defaults: no key, for one.
    ///
    /// # Errors
    /// What cannot be written in such a file.
    pub fn render_place(&self) -> Result<String, S3ConfError> {
        let mut conf = ServerConf::default();
        let switch = |on: bool| if on { "true" } else { "false" };
        for (key, value) in [
            ("CVMFS_S3_HOST", self.host.as_str()),
            ("CVMFS_S3_USE_HTTPS", switch(self.https)),
            ("CVMFS_S3_BUCKET", &self.bucket),
            ("CVMFS_S3_DNS_BUCKETS", switch(self.dns_buckets)),
            (
                "CVMFS_S3_REGION",
                self.region.as_deref().unwrap_or_default(),
            ),
        ] {
            conf.set(key, value)?;
        }
        Ok(conf.render())
    }

    /// The same bucket with everything else as it is by default, which is what
    /// [`S3Conf::render_place`] writes.
    #[must_use]
    pub fn of_place(host: String, https: bool, bucket: String, region: Option<String>) -> Self {
        Self {
            host,
            https,
            bucket,
            dns_buckets: true,
            key: None,
            region,
            timeout_seconds: DEFAULT_TIMEOUT_SECONDS,
            retries: DEFAULT_RETRIES as u32,
            connections: DEFAULT_CONNECTIONS as usize,
            peek: true,
            acl: CannedAcl::default(),
            proxy: None,
        }
    }
}

/// Azure is refused by name. Which of Amazon's signatures is meant makes no difference: there is
/// but the newer here, which every store of today takes.
fn check_flavor(conf: &ServerConf) -> Result<(), S3ConfError> {
    let key = "CVMFS_S3_FLAVOR";
    match conf.value(key)? {
        None | Some("awsv2" | "awsv4") => Ok(()),
        Some("azure") => Err(S3ConfError::Azure),
        Some(_) => Err(conf.bad(key, "awsv4, awsv2 or azure").into()),
    }
}

fn required<'c>(conf: &'c ServerConf, key: &'static str) -> Result<&'c str, ServerConfError> {
    conf.value(key)?.ok_or(ServerConfError::Missing(key))
}

fn host(conf: &ServerConf) -> Result<String, ServerConfError> {
    let key = "CVMFS_S3_HOST";
    let host = required(conf, key)?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    if !host.chars().all(is_host) {
        return Err(conf.bad(
            key,
            "a host's name or address, without http:// before or a path after it",
        ));
    }
    let key = "CVMFS_S3_PORT";
    match conf.value(key)? {
        None => Ok(host.to_owned()),
        Some(port) => match port.parse::<u16>() {
            Ok(port @ 1..) => Ok(format!("{host}:{port}")),
            _ => Err(conf.bad(key, "a port's number")),
        },
    }
}

fn bucket(conf: &ServerConf) -> Result<String, ServerConfError> {
    let key = "CVMFS_S3_BUCKET";
    let bucket = required(conf, key)?;
    if !is_bucket(bucket) {
        return Err(conf.bad(
            key,
            "the name of a bucket: letters, digits, '-', '_' and '.'",
        ));
    }
    Ok(bucket.to_owned())
}

/// True for what can be a bucket's name.
#[must_use]
pub fn is_bucket(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty()
        && name.len() <= MAX_BUCKET_BYTES
        && name.chars().all(plain)
        && !name.chars().all(|c| c == '.')
}

fn region(conf: &ServerConf) -> Result<Option<String>, ServerConfError> {
    let key = "CVMFS_S3_REGION";
    let Some(region) = conf.value(key)? else {
        return Ok(None);
    };
    // it becomes part of a header and of hosts' names
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !region.chars().all(plain) {
        return Err(conf.bad(key, "the name of a region"));
    }
    Ok(Some(region.to_owned()))
}

fn access_key(conf: &ServerConf) -> Result<Option<AccessKey>, S3ConfError> {
    let (id, secret) = ("CVMFS_S3_ACCESS_KEY", "CVMFS_S3_SECRET_KEY");
    match (conf.value(id)?, hidden(conf, secret)?) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => Ok(Some(AccessKey {
            id: id.to_owned(),
            secret: secret.to_owned(),
        })),
        (Some(_), None) => Err(S3ConfError::LoneKey {
            present: id,
            missing: secret,
        }),
        (None, Some(_)) => Err(S3ConfError::LoneKey {
            present: secret,
            missing: id,
        }),
    }
}

/// A value that no error may show.
fn hidden<'c>(conf: &'c ServerConf, key: &str) -> Result<Option<&'c str>, ServerConfError> {
    conf.value(key).map_err(|error| match error {
        ServerConfError::NotEvaluated { key, line, .. } => ServerConfError::NotEvaluated {
            key,
            line,
            text: "(not shown)".to_owned(),
        },
        error => error,
    })
}

fn acl(conf: &ServerConf) -> Result<CannedAcl, ServerConfError> {
    let key = "CVMFS_S3_X_AMZ_ACL";
    // here an empty value is one
    let is_empty = conf.iter().any(|(k, text)| k == key && text.is_empty());
    let text = match conf.value(key)? {
        None if is_empty => "",
        None => return Ok(CannedAcl::default()),
        Some(text) => text,
    };
    let known = CannedAcl::NAMES.iter().find(|(name, _)| *name == text);
    let (_, acl) = known.ok_or_else(|| {
        conf.bad(key, "a canned ACL: private, public-read, public-read-write, authenticated-read, aws-exec-read, bucket-owner-read, bucket-owner-full-control, or nothing")
    })?;
    Ok(*acl)
}

/// A switch; different from those of `server.conf`, four words turn one on [CVMFS
/// `options.cc:IsOn`].
fn switch(conf: &ServerConf, key: &str, default: bool) -> Result<bool, ServerConfError> {
    Ok(conf.value(key)?.map_or(default, |text| {
        ["yes", "on", "1", "true"].contains(&text.to_ascii_lowercase().as_str())
    }))
}

#[cfg(test)]
mod tests;
