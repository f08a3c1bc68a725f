//! A storage behind a web server, read only.
//!
//! `GET URL/data/ab/cdef...` for objects, `GET URL/.cvmfspublished` for root files. A request that
//! fails for a passing reason is made again, a bounded number of times; a body that breaks off goes
//! on where it was with a range request. What the server says is not trusted: users verify. The
//! HTTP library's threads stay inside; a store must not be made or dropped on an asynchronous
//! runtime's own threads. No proxy is taken from the environment.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use formats::ObjectName;
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{CACHE_CONTROL, CONTENT_LENGTH, RANGE};
use reqwest::redirect::Policy;

use crate::error::{Result, StoreError};
use crate::object_store::{ObjectStore, Pending, check_root_name};

/// How patient a store is.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// For a connection to come about.
    pub connect_timeout: Duration,
    /// For the next bytes to arrive.
    pub read_timeout: Duration,
    /// How often a request is made before its failure is final.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles each time.
    pub backoff: Duration,
    /// A proxy's URL.
    pub proxy: Option<String>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            // CVMFS_TIMEOUT_DIRECT
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            attempts: 3,
            backoff: Duration::from_millis(250),
            proxy: None,
        }
    }
}

/// More hops than any replica needs.
const MAX_REDIRECTS: usize = 4;
/// No root file of a served repository comes near.
const MAX_ROOT_FILE_BYTES: u64 = 1 << 30;
/// The pauses between attempts grow up to this.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone)]
pub struct HttpStore(Arc<Inner>);

struct Inner {
    client: Client,
    /// Without a trailing slash.
    base: String,
    options: HttpOptions,
}

impl HttpStore {
    /// A repository's storage by its URL, as in `http://host/cvmfs/repo.example.org`.
    ///
    /// # Errors
    /// When the HTTP library cannot start or the proxy's URL is none.
    pub fn new(url: &str, options: HttpOptions) -> Result<Self> {
        let failed = |source| http_error(url, "the HTTP client cannot start", source);
        let mut builder = Client::builder()
            .no_proxy()
            .connect_timeout(options.connect_timeout)
            // of the head and of each read, not of the whole body: objects are of any size
            .timeout(options.read_timeout)
            .redirect(Policy::limited(MAX_REDIRECTS))
            .user_agent(concat!("prepub/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &options.proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(failed)?);
        }
        let client = builder.build().map_err(failed)?;
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self(Arc::new(Inner {
            client,
            base,
            options,
        })))
    }
}

impl Inner {
    fn object_url(&self, name: &ObjectName) -> String {
        format!("{}/{}", self.base, name.storage_path())
    }

    /// The answer, or none where there is nothing.
    fn ask(&self, ask: &Ask<'_>) -> Result<Option<Response>> {
        let mut pause = self.options.backoff;
        let mut attempt = 1;
        loop {
            let last = attempt >= self.options.attempts;
            match self.ask_once(ask) {
                Ok(response) if response.status().is_success() => return Ok(Some(response)),
                Ok(response) if is_absent(response.status()) => return Ok(None),
                Ok(response) if last || !may_pass(response.status()) => {
                    return Err(StoreError::HttpStatus {
                        url: ask.url.to_owned(),
                        status: response.status().to_string(),
                    });
                }
                Err(error) if last || error.is_builder() || error.is_redirect() => {
                    let what = if error.is_timeout() {
                        "the server did not answer in time"
                    } else {
                        "the server cannot be reached"
                    };
                    return Err(http_error(ask.url, what, error));
                }
                Ok(_) | Err(_) => {}
            }
            tracing::debug!(url = ask.url, attempt, "request failed, trying again");
            std::thread::sleep(pause);
            pause = (pause * 2).min(MAX_BACKOFF);
            attempt += 1;
        }
    }

    fn ask_once(&self, ask: &Ask<'_>) -> reqwest::Result<Response> {
        let mut request = if ask.head_only {
            self.client.head(ask.url)
        } else {
            self.client.get(ask.url)
        };
        if ask.fresh {
            request = request.header(CACHE_CONTROL, "no-cache");
        }
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
        }
        request.send()
    }

    fn body(self: &Arc<Self>, url: String, fresh: bool) -> Result<Option<Body>> {
        let ask = Ask {
            url: &url,
            head_only: false,
            fresh,
            from: 0,
        };
        let Some(response) = self.ask(&ask)? else {
            return Ok(None);
        };
        let length = content_length(&response);
        let home = Arc::clone(self);
        Ok(Some(Body {
            home,
            url,
            response,
            done: 0,
            length,
            attempt: 1,
        }))
    }
}

/// One request.
struct Ask<'a> {
    url: &'a str,
    head_only: bool,
    /// Caches on the way must ask the server.
    fresh: bool,
    /// The first byte wanted.
    from: u64,
}

/// The storage has no such file; a server that hides its listing says so with 403 at times, but
/// that may as well be a real refusal.
fn is_absent(status: StatusCode) -> bool {
    status == StatusCode::NOT_FOUND || status == StatusCode::GONE
}

fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

fn http_error(url: &str, what: &'static str, source: reqwest::Error) -> StoreError {
    StoreError::Http {
        url: url.to_owned(),
        what,
        // the URL is in the message already
        source: Arc::new(source.without_url()),
    }
}

/// The header's value: the library's own count knows nothing of an answer to HEAD.
fn content_length(response: &Response) -> Option<u64> {
    response
        .headers()
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

impl std::fmt::Debug for HttpStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.base)
    }
}

impl ObjectStore for HttpStore {
    fn stored_size(&self, name: &ObjectName) -> Result<Option<u64>> {
        let url = self.0.object_url(name);
        let ask = Ask {
            url: &url,
            head_only: true,
            fresh: false,
            from: 0,
        };
        let Some(response) = self.0.ask(&ask)? else {
            return Ok(None);
        };
        // without a length the object has to be counted
        if let Some(length) = content_length(&response) {
            return Ok(Some(length));
        }
        let counted = io::copy(&mut self.open(name)?, &mut io::sink());
        let counted = counted.map_err(|e| crate::read_error(self, name, e))?;
        Ok(Some(counted))
    }

    fn open(&self, name: &ObjectName) -> Result<Box<dyn Read + Send>> {
        match self.0.body(self.0.object_url(name), false)? {
            Some(body) => Ok(Box::new(body)),
            None => Err(StoreError::NotFound {
                name: *name,
                place: self.0.base.clone(),
            }),
        }
    }

    fn begin(&self) -> Result<Box<dyn Pending>> {
        Err(self.read_only("take objects"))
    }

    fn delete(&self, _name: &ObjectName) -> Result<bool> {
        Err(self.read_only("delete objects"))
    }

    fn read_root(&self, file: &str) -> Result<Vec<u8>> {
        check_root_name(file)?;
        let url = format!("{}/{file}", self.0.base);
        let Some(body) = self.0.body(url.clone(), true)? else {
            let (file, place) = (file.to_owned(), self.0.base.clone());
            return Err(StoreError::RootNotFound { file, place });
        };
        let mut bytes = Vec::new();
        body.take(MAX_ROOT_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| match e.downcast::<StoreError>() {
                Ok(inner) => inner,
                Err(e) => StoreError::io("read", &url, e),
            })?;
        if bytes.len() as u64 > MAX_ROOT_FILE_BYTES {
            return Err(StoreError::TooLarge {
                what: url,
                limit: MAX_ROOT_FILE_BYTES,
            });
        }
        Ok(bytes)
    }

    fn write_root(&self, _file: &str, _bytes: &[u8]) -> Result<()> {
        Err(self.read_only("take root files"))
    }

    fn remove_root(&self, _file: &str) -> Result<bool> {
        Err(self.read_only("delete root files"))
    }

    fn for_each(&self, _visit: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        Err(self.read_only("list its objects"))
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

impl HttpStore {
    fn read_only(&self, action: &'static str) -> StoreError {
        let place = format!("{} (read over HTTP)", self.0.base);
        StoreError::Unsupported { place, action }
    }
}

/// A body that goes on after an interruption.
struct Body {
    home: Arc<Inner>,
    url: String,
    response: Response,
    done: u64,
    length: Option<u64>,
    /// Since the last bytes that arrived.
    attempt: u32,
}

impl Body {
    /// Asks for the rest.
    fn resume(&mut self) -> io::Result<()> {
        let ask = Ask {
            url: &self.url,
            head_only: false,
            fresh: false,
            from: self.done,
        };
        let broken = |why: &str| {
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("{}: {why}", self.url))
        };
        let Some(response) = self.home.ask(&ask)? else {
            return Err(broken("it is gone since its first bytes were sent"));
        };
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => 0,
            // no ranges here: from the beginning again
            _ => self.done,
        };
        self.response = response;
        let skipped = io::copy(&mut (&mut self.response).take(skip), &mut io::sink())?;
        if skipped < skip {
            return Err(broken("the answer breaks off"));
        }
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let short = |done| self.length.is_some_and(|length| done < length);
            let failure = match self.response.read(buffer) {
                Ok(0) if short(self.done) => io::ErrorKind::UnexpectedEof.into(),
                Ok(n) => {
                    self.done += n as u64;
                    if n > 0 {
                        self.attempt = 1;
                    }
                    return Ok(n);
                }
                Err(e) => e,
            };
            if self.attempt >= self.home.options.attempts {
                let what = "the answer breaks off";
                let source = Arc::new(failure);
                return Err(StoreError::Http {
                    url: self.url.clone(),
                    what,
                    source,
                }
                .into());
            }
            self.attempt += 1;
            std::thread::sleep(self.home.options.backoff);
            self.resume()?;
        }
    }
}
