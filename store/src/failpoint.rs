//! Named points at the durable steps of every room: tests make them fail, or end the process there.
//!
//! ```text
//! FAILPOINTS='commit::stored=return'           the step fails
//! FAILPOINTS='commit::stored=return(kill)'     the process is gone at once, as with kill -9
//! FAILPOINTS='commit::stored=2*off->return'    ... the third time
//! ```
//!
//! Without the feature `failpoints` a point is nothing. The workspace's tests read the names from the
//! sources, so that none is without a test; a name is written out where it is passed.

/// A test wanted this step to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("injected fault at {0}")]
pub struct Injected(pub &'static str);

/// Passes the point of this name.
///
/// # Errors
/// [`Injected`], if a test has asked for that.
#[allow(
    clippy::unnecessary_wraps,
    reason = "without the feature there is no fault"
)]
pub fn pass(name: &'static str) -> Result<(), Injected> {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |action| {
        if action.as_deref() == Some("kill") {
            kill();
        }
        Err(Injected(name))
    });
    let _ = name;
    Ok(())
}

/// Ends this process without a word, whatever other threads are doing.
#[cfg(feature = "failpoints")]
fn kill() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // the signal is on its way
    loop {
        std::thread::park();
    }
}
