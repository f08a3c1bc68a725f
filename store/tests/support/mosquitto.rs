//! A real broker with TLS, certificates for its clients, and an access list.
//!
//! A module of other rooms' tests too, so it names nothing of theirs.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use formats::warm::identity::{Authority, Issued, NodeName, Role, Subject};

/// What `prepub site broker` writes, and the manual shows.
pub const CONFIGURATION: &str = include_str!("../../../packaging/mosquitto/prepub.conf");
pub const ACCESS: &str = include_str!("../../../packaging/mosquitto/prepub.acl");
/// Where these files look for one another, and which publisher they name.
const PLACE: &str = "/etc/mosquitto/prepub/";
const PUBLISHER: &str = "stratum0.example.org";

/// A port that nobody has at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A broker on a port of its own; it ends when this is dropped.
pub struct Mosquitto {
    pub port: u16,
    dir: PathBuf,
    process: Option<Child>,
}

impl Mosquitto {
    /// Starts one, whose state is in `dir`. Its clients' certificates are of `authority`, and so is its own;
    /// `publisher` is the name of the one that may announce.
    ///
    /// # Panics
    /// Where there is no mosquitto, which `scripts/deps test` installs.
    pub fn start(dir: &Path, authority: &Authority, publisher: &str) -> Self {
        Self::start_at(free_port(), dir, authority, publisher)
    }

    /// The same, on a port that was chosen before.
    pub fn start_at(port: u16, dir: &Path, authority: &Authority, publisher: &str) -> Self {
        fs::create_dir_all(dir).unwrap();
        let name: NodeName = "broker".parse().unwrap();
        let subject = Subject {
            role: Role::Broker,
            name: &name,
            hosts: &["127.0.0.1", "localhost"],
        };
        let now = SystemTime::now();
        let issued = authority.issue(subject, now).unwrap();
        let access = ACCESS.replace(PUBLISHER, publisher);
        fs::write(dir.join("prepub.conf"), CONFIGURATION).unwrap();
        fs::write(dir.join("prepub.acl"), access).unwrap();
        fs::write(dir.join("ca.crt"), authority.certificate_pem().unwrap()).unwrap();
        fs::write(
            dir.join("crl.pem"),
            authority.revocations(&[], now).unwrap(),
        )
        .unwrap();
        fs::write(dir.join("broker.crt"), &issued.certificate).unwrap();
        fs::write(dir.join("broker.key"), &issued.key).unwrap();
        Self::set_up_at(port, dir)
    }

    /// With the files that lie in `dir`, as the manual says, but for the place and the port.
    pub fn set_up_at(port: u16, dir: &Path) -> Self {
        let at = dir.display();
        let text = fs::read_to_string(dir.join("prepub.conf")).unwrap();
        assert!(text.contains("listener 8883\n") && text.contains(PLACE));
        let text = text
            .replace("listener 8883", &format!("listener {port} 127.0.0.1"))
            .replace(PLACE, &format!("{at}/"));
        // what the main configuration of a distribution says
        let main = format!(
            "persistence true\npersistence_location {at}/\nuser root\nlog_dest file {at}/log\n"
        );
        fs::write(dir.join("conf"), text + &main).unwrap();
        let mut broker = Self {
            port,
            dir: dir.to_owned(),
            process: None,
        };
        broker.up();
        broker
    }

    /// Starts it again where it was.
    pub fn up(&mut self) {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("mosquitto");
        let child = Command::new(program)
            .arg("-c")
            .arg(self.dir.join("conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto, which scripts/deps test installs");
        self.process = Some(child);
        let up = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(25));
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        assert!(up, "mosquitto does not listen: {log}");
    }

    /// Ends it at once.
    pub fn down(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("mqtts://127.0.0.1:{}", self.port)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.down();
    }
}

/// A client's certificate and key.
pub fn client(authority: &Authority, role: Role, name: &str) -> Issued {
    let name: NodeName = name.parse().unwrap();
    let subject = Subject {
        role,
        name: &name,
        hosts: &[],
    };
    authority.issue(subject, SystemTime::now()).unwrap()
}
