//! What an S3 server can refuse, told apart where the way out differs.
//!
//! The AWS library's errors are sorted here and nowhere else. No message holds a secret.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// Why a bucket could not do what it was asked. `what` is the request: its verb and `s3://` address.
#[derive(Debug, Clone, thiserror::Error)]
pub enum S3Error {
    /// The key is known, and not allowed.
    #[error(
        "{what}: access denied to key {key}; let the bucket's policy or the key's rights allow s3:GetObject, s3:PutObject, s3:PutObjectAcl and s3:DeleteObject below the prefix, and s3:ListBucket on the bucket (without that, S3 answers so for objects that are not there)"
    )]
    Denied {
        /// What was tried.
        what: String,
        /// The access key's public name.
        key: String,
    },
    /// The key is not known, or its secret is wrong.
    #[error(
        "{what}: the server does not accept key {key} ({code}); check CVMFS_S3_ACCESS_KEY and CVMFS_S3_SECRET_KEY in s3.conf, or the AWS credentials, and CVMFS_S3_REGION"
    )]
    BadKey {
        /// What was tried.
        what: String,
        /// The access key's public name.
        key: String,
        /// The server's word for it.
        code: String,
    },
    /// There is no key to sign with.
    #[error(
        "{what}: there are no credentials; set CVMFS_S3_ACCESS_KEY and CVMFS_S3_SECRET_KEY in s3.conf, or give AWS credentials (AWS_ACCESS_KEY_ID, ~/.aws/credentials, an instance's role)"
    )]
    NoKey {
        /// What was tried.
        what: String,
        /// What the library said.
        source: Shared,
    },
    /// The bucket is not there.
    #[error(
        "{what}: there is no such bucket; make it, or let `prepub mkfs --create-bucket` make it, and check CVMFS_S3_HOST and CVMFS_S3_BUCKET"
    )]
    NoBucket {
        /// What was tried.
        what: String,
    },
    /// The signature's time is not the server's.
    #[error(
        "{what}: this machine's clock differs from the server's by more than it allows; set it (chrony or ntpd), and try again"
    )]
    Clock {
        /// What was tried.
        what: String,
    },
    /// The bucket is elsewhere.
    #[error(
        "{what}: the bucket is in another region ({region}); set CVMFS_S3_REGION and CVMFS_S3_HOST for that one"
    )]
    Region {
        /// What was tried.
        what: String,
        /// Which, as far as the server says.
        region: String,
    },
    /// The bucket takes no access control lists.
    #[error(
        "{what}: the bucket takes no access control lists; write CVMFS_S3_X_AMZ_ACL= (with nothing after it) into s3.conf, and let a policy of the bucket allow everybody to read"
    )]
    NoAcl {
        /// What was tried.
        what: String,
    },
    /// No space, or a quota.
    #[error(
        "{what}: the store has no room left ({code}); free some, or have the bucket's quota raised"
    )]
    Full {
        /// What was tried.
        what: String,
        /// The server's word for it.
        code: String,
    },
    /// It asked to be spared each time.
    #[error(
        "{what}: the server is overloaded and wants fewer requests ({code}), after {attempts} attempts; try again later, or lower CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS"
    )]
    Busy {
        /// What was tried.
        what: String,
        /// The server's word for it.
        code: String,
        /// How often.
        attempts: u32,
    },
    /// Any other refusal.
    #[error("{what}: the server answered {status} {code}{message}, after {attempts} attempt(s)")]
    Answer {
        /// What was tried.
        what: String,
        /// Of HTTP.
        status: u16,
        /// The server's word for it.
        code: String,
        /// What else it said, after a colon.
        message: String,
        /// How often.
        attempts: u32,
    },
    /// No answer, or half of one.
    #[error(
        "{what}: {how}, after {attempts} attempt(s); check that the server runs and CVMFS_S3_HOST, _PORT and _USE_HTTPS are right, then try again"
    )]
    Unreachable {
        /// What was tried.
        what: String,
        /// What went wrong.
        how: &'static str,
        /// How often.
        attempts: u32,
        /// What the library said.
        source: Shared,
    },
    /// It speaks HTTPS, and who it is cannot be verified.
    #[error(
        "{what}: this machine does not trust the server's certificate; let the system trust who signed it (or name a file with that one's certificate in SSL_CERT_FILE, in the daemon's environment), and let CVMFS_S3_HOST be a name that the certificate is for"
    )]
    Untrusted {
        /// What was tried.
        what: String,
        /// What the library said.
        source: Shared,
    },
    /// It said that it has what it has not.
    #[error(
        "{what}: the server said that it was stored, and then {found}; nothing that refers to it is published; ask who runs the store, and try again"
    )]
    Untrue {
        /// What was tried.
        what: String,
        /// What was found instead.
        found: &'static str,
    },
    /// The client.
    #[error("the S3 client cannot start; check CVMFS_S3_HOST and CVMFS_S3_PROXY")]
    Start(#[source] Shared),
}

/// A source that clones share.
pub type Shared = Arc<dyn Error + Send + Sync>;

impl S3Error {
    /// True where space or quota ran out.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// True where rights or keys are missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(
            self,
            Self::Denied { .. } | Self::BadKey { .. } | Self::NoKey { .. }
        )
    }
}

/// What a request that failed is worth.
pub(super) enum Verdict {
    /// Nothing is there.
    Absent,
    /// Trying again is of no use.
    Final(S3Error),
    /// It may pass.
    Passing(S3Error),
    /// The server wants a pause, for so long if it says.
    Throttled(S3Error, Option<Duration>),
}

/// A request for a message.
pub(super) struct Asked<'a> {
    pub what: String,
    pub key: &'a str,
    pub attempts: u32,
}

/// How stores say that no room is left, besides by 507.
const FULL: [&str; 4] = [
    "QuotaExceeded",
    "InsufficientStorage",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
];

/// Sorts an error of the library.
pub(super) fn judge<E>(asked: Asked<'_>, error: SdkError<E, HttpResponse>) -> Verdict
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let Asked {
        what,
        key,
        attempts,
    } = asked;
    let Some(response) = error.raw_response() else {
        return unanswered(what, attempts, error);
    };
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).map(str::to_owned);
    let pause = header("retry-after")
        .and_then(|text| text.parse().ok())
        .map(Duration::from_secs);
    let region = header("x-amz-bucket-region");
    let service = error.as_service_error();
    let code = service
        .and_then(|e| e.code())
        .unwrap_or_default()
        .to_owned();
    let message = service
        .and_then(|e| e.message())
        .map_or_else(String::new, |m| format!(": {m}"));
    let key = key.to_owned();
    match (status, code.as_str()) {
        (_, "NoSuchBucket") => Verdict::Final(S3Error::NoBucket { what }),
        (404, _) => Verdict::Absent,
        (_, "RequestTimeTooSkewed") => Verdict::Final(S3Error::Clock { what }),
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken") => {
            Verdict::Final(S3Error::BadKey { what, key, code })
        }
        (_, "AccessControlListNotSupported") => Verdict::Final(S3Error::NoAcl { what }),
        (301 | 307, _) | (_, "PermanentRedirect" | "AuthorizationHeaderMalformed") => {
            let region = region.unwrap_or_else(|| "it does not say which".into());
            Verdict::Final(S3Error::Region { what, region })
        }
        (507, _) => Verdict::Final(S3Error::Full { what, code }),
        (_, full) if FULL.contains(&full) => Verdict::Final(S3Error::Full { what, code }),
        (401 | 403, _) => Verdict::Final(S3Error::Denied { what, key }),
        (429 | 503, _) | (_, "SlowDown" | "TooManyRequests" | "RequestLimitExceeded") => {
            Verdict::Throttled(
                S3Error::Busy {
                    what,
                    code,
                    attempts,
                },
                pause,
            )
        }
        _ => {
            let verdict = match may_pass(status, &code) {
                true => Verdict::Passing,
                false => Verdict::Final,
            };
            verdict(S3Error::Answer {
                what,
                status,
                code,
                message,
                attempts,
            })
        }
    }
}

/// Time-outs of the server, bytes that were damaged on the way, somebody at the same file.
fn may_pass(status: u16, code: &str) -> bool {
    status >= 500
        || matches!(status, 408 | 200..=299)
        || matches!(
            code,
            "BadDigest"
                | "IncompleteBody"
                | "OperationAborted"
                | "RequestTimeout"
                | "XAmzContentSHA256Mismatch"
        )
}

/// There was no answer.
fn unanswered<E>(what: String, attempts: u32, error: SdkError<E, HttpResponse>) -> Verdict
where
    E: Error + Send + Sync + 'static,
{
    if is_untrusted(&error) {
        let source = Arc::new(error);
        return Verdict::Final(S3Error::Untrusted { what, source });
    }
    let how = match &error {
        SdkError::TimeoutError(_) => "the server did not answer in time",
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            "the server did not answer in time"
        }
        SdkError::DispatchFailure(failure) if failure.is_io() => {
            "the server cannot be reached or broke off"
        }
        // what comes before a request is sent: its signature, and what for that is wanted
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
            let source = Arc::new(error);
            return Verdict::Final(S3Error::NoKey { what, source });
        }
        _ => "the server's answer broke off",
    };
    let source = Arc::new(error);
    Verdict::Passing(S3Error::Unreachable {
        what,
        how,
        attempts,
        source,
    })
}

/// True where OpenSSL refused a certificate: its error stands in the chain by its words alone.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&link| link.source())
        .any(|link| link.to_string().contains("certificate verify failed"))
}
