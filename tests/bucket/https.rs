//! A bucket behind HTTPS: who serves it is verified, by whom the environment says is to be trusted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::said;
use crate::support::s3::S3Server;
use crate::support::tls::{Authority, HOST};
use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

struct Site {
    sandbox: Sandbox,
    /// The certificate of who signed the server's.
    trusted: PathBuf,
    /// Somebody else's.
    other: PathBuf,
    port: u16,
    server: S3Server,
}

impl Site {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let at = |name: &str| sandbox.dir.path().join(name);
        let server = S3Server::start(&at("server"));
        let authority = Authority::new("Test CA");
        let (trusted, other) = (at("trusted.pem"), at("other.pem"));
        fs::write(&trusted, authority.pem()).unwrap();
        fs::write(&other, Authority::new("Other CA").pem()).unwrap();
        let port = authority.serve(server.port);
        let site = Self {
            trusted,
            other,
            port,
            server,
            sandbox,
        };
        site.reached_as(HOST);
        site
    }

    /// Writes the `s3.conf`.
    fn reached_as(&self, host: &str) {
        let more = "CVMFS_S3_USE_HTTPS=true\nCVMFS_S3_MAX_RETRIES=1\nCVMFS_S3_TIMEOUT=10\n";
        let conf = self.server.conf_at(self.port, more);
        let conf = conf.replace("CVMFS_S3_HOST=127.0.0.1", &format!("CVMFS_S3_HOST={host}"));
        fs::write(self.sandbox.dir.path().join("s3.conf"), conf).unwrap();
    }

    fn mkfs(&self, trusted: &Path) -> Output {
        let args = [
            "mkfs",
            REPO,
            "--storage",
            "s3://software/repo",
            "--s3-config",
        ];
        let mut command = self.sandbox.command(args);
        command.arg(self.sandbox.dir.path().join("s3.conf"));
        command.env("SSL_CERT_FILE", trusted);
        command.output().unwrap()
    }

    #[track_caller]
    fn refused(&self, trusted: &Path) {
        let output = self.mkfs(trusted);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("does not trust the server's certificate")
                && text.contains("SSL_CERT_FILE"),
            "{text}"
        );
        assert!(text.contains("certificate verify failed"), "{text}");
    }
}

#[test]
fn only_a_server_that_is_trusted_is_spoken_to() {
    let mut site = Site::new();
    site.refused(&site.other);
    // by whom it should be, and with another name
    site.reached_as("127.0.0.1");
    site.refused(&site.trusted);
    site.reached_as(HOST);
    let output = site.mkfs(&site.trusted);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("warning"), "clients read it, too: {text}");
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let trusted = site.trusted.clone();
    let env = [("SSL_CERT_FILE", trusted.to_str().unwrap())];
    site.sandbox.mount_with(&env);
    write(&site.sandbox.root().join("file"), b"bytes");
    let made = site.sandbox.json(["commit", REPO]);
    assert_eq!(made["revision"], 2, "{made}");
}
