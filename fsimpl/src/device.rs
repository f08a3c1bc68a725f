//! A `/dev/fuse` descriptor with a mount behind it.
//!
//! Root mounts by itself. Everybody else asks `fusermount3`, which is setuid root, hands the
//! descriptor over a socket, and checks what an ordinary user may do. Taking mounts off is
//! `session.rs`'s business, and what is read from the descriptor that of `fuse.rs`.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::session::SUBTYPE;

const DEVICE: &str = "/dev/fuse";

/// Mounts on `mountpoint` and returns the kernel's end.
pub(crate) fn mount(mountpoint: &Path, allow_other: bool) -> io::Result<OwnedFd> {
    match mount_directly(mountpoint, allow_other) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            mount_by_helper(mountpoint, allow_other)
        }
        result => result,
    }
}

/// True if more descriptors of one mount can be had, which need the device itself.
pub(crate) fn is_accessible() -> bool {
    open().is_ok()
}

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

fn mount_directly(mountpoint: &Path, allow_other: bool) -> io::Result<OwnedFd> {
    let device = open()?;
    let options = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{}",
        device.as_raw_fd(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
        if allow_other { ",allow_other" } else { "" },
    );
    let options = CString::new(options)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let fstype = format!("fuse.{SUBTYPE}");
    rustix::mount::mount(SUBTYPE, mountpoint, fstype, flags, Some(options.as_c_str()))?;
    Ok(device.into())
}

fn mount_by_helper(mountpoint: &Path, allow_other: bool) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let options = format!(
        "fsname={SUBTYPE},subtype={SUBTYPE},default_permissions,nosuid,nodev{}",
        if allow_other { ",allow_other" } else { "" },
    );
    // the helper answers on the descriptor that the variable names: its standard input
    let child = Command::new("fusermount3")
        .args(["-o", &options, "--"])
        .arg(mountpoint)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::new(
                error.kind(),
                "fusermount3 is not installed (package fuse3), and only root mounts without it",
            ),
            _ => error,
        })?;
    let received = receive(&ours);
    let output = child.wait_with_output()?;
    match received? {
        Some(device) if output.status.success() => Ok(device),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(io::Error::new(io::ErrorKind::PermissionDenied, said))
        }
    }
}

/// The descriptor that comes over the socket; none if the helper closes it first.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    loop {
        let buffers = &mut [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    let mut received = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(received.next())
}
