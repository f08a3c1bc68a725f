//! A real S3 server in this process: `s3s-fs`, over a directory. Anybody may read, one key may write.
//!
//! A module of other rooms' tests too, so it names nothing of theirs.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::host::{S3Host, VirtualHost};
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub const KEY: &str = "prepub-tests";
pub const SECRET: &str = "nobody-is-to-see-this-secret";
pub const BUCKET: &str = "software";
/// Below this domain each bucket has a name of its own; nobody resolves it.
pub const DOMAIN: &str = "s3.test";

/// Serves until it is stopped or dropped.
pub struct S3Server {
    root: PathBuf,
    pub port: u16,
    is_public: Arc<AtomicBool>,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// A server with one bucket, [`BUCKET`]; what it keeps lies below `root`.
    pub fn start(root: &Path) -> Self {
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let mut server = Self {
            root: root.to_path_buf(),
            port: 0,
            is_public: Arc::new(AtomicBool::new(true)),
            runtime: None,
        };
        server.go_on();
        server
    }

    /// Whether those without a key may read objects.
    pub fn set_public(&self, is_public: bool) {
        self.is_public.store(is_public, Ordering::SeqCst);
    }

    /// It is gone, and its connections with it.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(std::time::Duration::from_secs(10));
        }
    }

    /// Serves again, at the same address.
    pub fn go_on(&mut self) {
        assert!(self.runtime.is_none());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", self.port)))
            .unwrap();
        self.port = listener.local_addr().unwrap().port();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&self.root).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        service.set_access(Readable(Arc::clone(&self.is_public)));
        service.set_host(Named);
        let service = service.build();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(socket), service.clone());
                tokio::spawn(serving);
            }
        });
        self.runtime = Some(runtime);
    }

    /// An `s3.conf` for it, as it is reached at `port`.
    pub fn conf_at(&self, port: u16, more: &str) -> String {
        format!(
            "CVMFS_S3_HOST=127.0.0.1\nCVMFS_S3_PORT={port}\nCVMFS_S3_BUCKET={BUCKET}\n\
             CVMFS_S3_DNS_BUCKETS=false\nCVMFS_S3_ACCESS_KEY={KEY}\nCVMFS_S3_SECRET_KEY={SECRET}\n{more}"
        )
    }

    /// An `s3.conf` for it.
    pub fn conf(&self, more: &str) -> String {
        self.conf_at(self.port, more)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `BUCKET.s3.test` is a bucket's own name; all others have the bucket in the path.
struct Named;

impl S3Host for Named {
    fn parse_host_header<'h>(&'h self, host: &'h str) -> s3s::S3Result<VirtualHost<'h>> {
        Ok(
            match host
                .strip_suffix(DOMAIN)
                .and_then(|bucket| bucket.strip_suffix('.'))
            {
                Some(bucket) => VirtualHost::new(DOMAIN).with_bucket(bucket),
                None => VirtualHost::new(host),
            },
        )
    }
}

struct Readable(Arc<AtomicBool>);

impl S3Access for Readable {
    fn check<'s, 'c, 'x, 'f>(
        &'s self,
        context: &'c mut S3AccessContext<'x>,
    ) -> Pin<Box<dyn Future<Output = s3s::S3Result<()>> + Send + 'f>>
    where
        's: 'f,
        'c: 'f,
        'x: 'f,
        Self: 'f,
    {
        let is_reading = matches!(context.s3_op().name(), "GetObject" | "HeadObject");
        let may = context.credentials().is_some() || (is_reading && self.0.load(Ordering::SeqCst));
        Box::pin(async move {
            if may {
                return Ok(());
            }
            Err(s3s::s3_error!(AccessDenied, "no key, and not public"))
        })
    }
}
