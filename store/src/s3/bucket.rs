//! Requests to one bucket.
//!
//! Each is made again a bounded number of times where that may help, at most so many at once as the
//! configuration says. Answers that nothing is there are none of its errors. It knows nothing of
//! objects' names: a file is what follows the prefix.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
    retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_s3::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ObjectCannedAcl;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use formats::s3_conf::S3Conf;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::config::{behavior, credentials};
use super::connector::Connector;
use super::error::{Asked, S3Error, Verdict, judge};
use super::pace::{Brake, backoff};
use super::spool::Held;

/// How often a request waits for a server that asks to be spared: waiting is not failing, and an
/// hour of it is no way to publish.
const THROTTLES_MAX: u32 = 12;
/// Threads that move bytes. What they do besides is signatures; two keep a network busy.
const IO_THREADS: usize = 2;

/// What a file is served as [CVMFS `s3fanout.cc:GetContentType`].
#[derive(Clone, Copy)]
pub(super) struct Served {
    content_type: &'static str,
    cache_control: Option<&'static str>,
}

/// What never changes may be kept for three days [CVMFS `s3fanout.cc:kCacheControlCas`].
pub(super) const OBJECT: Served = Served {
    content_type: "application/octet-stream",
    cache_control: Some("max-age=259200"),
};

impl Served {
    /// A root file, by its name.
    pub fn root(file: &str) -> Self {
        if file.starts_with(".cvmfs") {
            Self {
                content_type: "application/x-cvmfs",
                cache_control: Some("max-age=61"),
            }
        } else if file.ends_with(".html") {
            Self {
                content_type: "text/html",
                cache_control: None,
            }
        } else {
            Self {
                content_type: OBJECT.content_type,
                cache_control: None,
            }
        }
    }
}

/// See the module.
pub(super) struct Bucket {
    /// Until the end.
    runtime: Option<Runtime>,
    pub(super) client: Client,
    pub(super) conf: S3Conf,
    /// Before each file; ends in a slash.
    pub(super) prefix: String,
    permits: Semaphore,
    brake: Brake,
}

impl Bucket {
    /// Nothing is asked of the server yet.
    pub fn open(conf: S3Conf, alias: &str) -> Result<Self, S3Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|e| S3Error::Start(Arc::new(e)))?;
        let silence = Duration::from_secs(conf.timeout_seconds);
        let connector = Connector::new(silence, conf.connections, conf.proxy.as_deref());
        let connector = connector.map_err(|e| S3Error::Start(Arc::new(e)))?;
        let config = runtime.block_on(credentials(&conf, &connector));
        let config = config
            .behavior_version(behavior())
            .http_client(connector)
            .endpoint_url(conf.endpoint())
            .use_fips(false)
            .use_dual_stack(false)
            .force_path_style(!conf.dns_buckets)
            // done here, with a say for all threads at once
            .retry_config(RetryConfig::disabled())
            // the connector listens
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // half of the stores know none of the newer checksums; bytes go with their MD5
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Ok(Self {
            client: Client::from_conf(config),
            runtime: Some(runtime),
            prefix: format!("{}/", alias.trim_matches('/')),
            permits: Semaphore::new(conf.connections),
            brake: Brake::default(),
            conf,
        })
    }

    /// What a file is called in messages.
    pub fn address(&self, file: &str) -> String {
        format!("s3://{}/{}{file}", self.conf.bucket, self.prefix)
    }

    /// True if it is to be asked before an object is sent.
    pub fn peeks(&self) -> bool {
        self.conf.peek
    }

    /// How often something is tried again.
    pub fn retries(&self) -> u32 {
        self.conf.retries
    }

    /// How many requests are made at once.
    pub fn connections(&self) -> usize {
        self.conf.connections
    }

    fn key(&self, file: &str) -> String {
        format!("{}{file}", self.prefix)
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("there until it is dropped")
    }

    /// Waits for what happens on the bucket's own threads.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime().block_on(work)
    }

    /// Things of the HTTP library are to be dropped under this.
    pub fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime().enter()
    }

    /// Sleeps before something is tried again for the `failures + 1`st time.
    pub fn pause(&self, failures: u32) {
        std::thread::sleep(backoff(failures));
    }

    /// Makes a request until it is answered; nothing where nothing is there.
    pub fn ask<T, E, F>(
        &self,
        verb: &'static str,
        file: &str,
        request: impl Fn() -> F,
    ) -> Result<Option<T>, S3Error>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let key = self.conf.key.as_ref();
        let key = key.map_or("of the AWS credentials", |key| &key.id);
        self.block_on(async {
            let (mut failures, mut throttles) = (0, 0);
            loop {
                self.brake.released().await;
                let permit = self.permits.acquire().await;
                let outcome = request().await;
                drop(permit);
                let error = match outcome {
                    Ok(answer) => return Ok(Some(answer)),
                    Err(error) => error,
                };
                let what = format!("{verb} {}", self.address(file));
                let attempts = failures + throttles + 1;
                match judge(
                    Asked {
                        what,
                        key,
                        attempts,
                    },
                    error,
                ) {
                    Verdict::Absent => return Ok(None),
                    Verdict::Final(error) => return Err(error),
                    Verdict::Passing(error) if failures >= self.conf.retries => return Err(error),
                    Verdict::Throttled(error, _) if throttles >= THROTTLES_MAX => {
                        return Err(error);
                    }
                    Verdict::Passing(error) => {
                        tracing::debug!(%error, "trying again");
                        tokio::time::sleep(backoff(failures)).await;
                        failures += 1;
                    }
                    Verdict::Throttled(error, pause) => {
                        tracing::debug!(%error, ?pause, "waiting");
                        self.brake.pull(pause, throttles);
                        throttles += 1;
                    }
                }
            }
        })
    }

    /// How long a file is.
    pub fn head(&self, file: &str) -> Result<Option<u64>, S3Error> {
        let answer = self.ask("HEAD", file, || {
            let request = self.client.head_object();
            request.bucket(&self.conf.bucket).key(self.key(file)).send()
        })?;
        Ok(answer.map(|answer| {
            let length = answer.content_length().unwrap_or_default();
            u64::try_from(length).unwrap_or_default()
        }))
    }

    /// A file from its `from`th byte on; its body is still to come.
    pub fn get(&self, file: &str, from: u64) -> Result<Option<GetObjectOutput>, S3Error> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        self.ask("GET", file, || {
            let request = self.client.get_object();
            let request = request.bucket(&self.conf.bucket).key(self.key(file));
            request.set_range(range.clone()).send()
        })
    }

    /// A file, whole, and never a mixture of two; cut off after `limit` bytes and one.
    pub fn get_whole(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>, S3Error> {
        self.ask("GET", file, || async {
            let request = self.client.get_object();
            let request = request.bucket(&self.conf.bucket).key(self.key(file));
            let mut answer = request.send().await?;
            let length = answer.content_length().and_then(|n| u64::try_from(n).ok());
            let mut bytes = Vec::new();
            let broken = |e| SdkError::dispatch_failure(ConnectorError::io(e));
            while let Some(piece) = answer.body.next().await {
                bytes.extend_from_slice(&piece.map_err(|e| broken(e.into()))?);
                if bytes.len() as u64 > limit {
                    return Ok(bytes);
                }
            }
            if length.is_some_and(|length| length != bytes.len() as u64) {
                return Err(broken(
                    std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into(),
                ));
            }
            Ok(bytes)
        })
    }

    /// Stores a file in one request: until that is done, what was there is.
    pub fn put(&self, file: &str, held: &Held, served: Served) -> Result<(), S3Error> {
        let md5 = aws_smithy_types::base64::encode(held.md5);
        let acl = self.conf.acl.header().map(ObjectCannedAcl::from);
        let answer = self.ask("PUT", file, || {
            let request = self.client.put_object();
            request
                .bucket(&self.conf.bucket)
                .key(self.key(file))
                .content_type(served.content_type)
                .set_cache_control(served.cache_control.map(str::to_owned))
                .set_acl(acl.clone())
                .content_length(i64::try_from(held.bytes).unwrap_or(i64::MAX))
                .content_md5(&md5)
                .body(held.body())
                .send()
        })?;
        match answer {
            Some(_) => Ok(()),
            None => Err(S3Error::NoBucket {
                what: format!("PUT {}", self.address(file)),
            }),
        }
    }

    /// Removes a file, or does nothing.
    pub fn delete(&self, file: &str) -> Result<(), S3Error> {
        self.ask("DELETE", file, || {
            let request = self.client.delete_object();
            request.bucket(&self.conf.bucket).key(self.key(file)).send()
        })?;
        Ok(())
    }

    /// A page of the files below a directory with their sizes, and where the next begins.
    pub fn list(&self, below: &str, token: Option<String>) -> Result<Page, S3Error> {
        let prefix = self.key(below);
        let answer = self.ask("LIST", below, || {
            let request = self.client.list_objects_v2();
            let request = request.bucket(&self.conf.bucket).prefix(&prefix);
            request.set_continuation_token(token.clone()).send()
        })?;
        let Some(answer) = answer else {
            return Err(S3Error::NoBucket {
                what: format!("LIST {}", self.address(below)),
            });
        };
        let files = answer.contents().iter().filter_map(|object| {
            let file = object.key()?.strip_prefix(&prefix)?;
            Some((
                file.to_owned(),
                u64::try_from(object.size()?).unwrap_or_default(),
            ))
        });
        Ok(Page {
            files: files.collect(),
            next: answer.next_continuation_token().map(str::to_owned),
        })
    }
}

/// Part of a listing.
pub(super) struct Page {
    /// What follows the directory's name, and how long it is.
    pub files: Vec<(String, u64)>,
    /// None at the end.
    pub next: Option<String>,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // it may end on a thread that must not wait
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
