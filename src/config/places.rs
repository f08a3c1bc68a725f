//! Where things are by default: the system's places for root, XDG's for everybody else.

use std::path::PathBuf;

/// Default places of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The configuration file.
    pub config: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The mount point; none where the session has no runtime directory.
    pub mountpoint: Option<PathBuf>,
}

impl Places {
    /// Those of the user this process runs as.
    #[must_use]
    pub fn of_this_process() -> Self {
        let env = |name: &str| std::env::var_os(name).map(PathBuf::from);
        Self::of(rustix::process::geteuid().is_root(), &env)
    }

    fn of(root: bool, env: &dyn Fn(&str) -> Option<PathBuf>) -> Self {
        if root {
            return Self {
                config: "/etc/prepub/config.toml".into(),
                state_dir: "/var/lib/prepub".into(),
                mountpoint: Some("/prepub".into()),
            };
        }
        // XDG: a relative path in one of these variables is to be ignored
        let env = |name: &str| env(name).filter(|path| path.is_absolute());
        let home = env("HOME").unwrap_or_else(|| PathBuf::from("/nonexistent"));
        let config = env("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        let state = env("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state"));
        Self {
            config: config.join("prepub/config.toml"),
            state_dir: state.join("prepub"),
            mountpoint: env("XDG_RUNTIME_DIR").map(|dir| dir.join("prepub")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_others() {
        let none = |_: &str| None;
        assert_eq!(
            Places::of(true, &none).state_dir,
            PathBuf::from("/var/lib/prepub")
        );
        let env = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/home/a")),
            "XDG_RUNTIME_DIR" => Some(PathBuf::from("/run/user/7")),
            "XDG_CONFIG_HOME" => Some(PathBuf::from("relative/is/ignored")),
            _ => None,
        };
        let places = Places::of(false, &env);
        assert_eq!(
            places.config,
            PathBuf::from("/home/a/.config/prepub/config.toml")
        );
        assert_eq!(
            places.state_dir,
            PathBuf::from("/home/a/.local/state/prepub")
        );
        assert_eq!(places.mountpoint, Some(PathBuf::from("/run/user/7/prepub")));
    }
}
