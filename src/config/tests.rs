use super::*;

fn refused(text: &str) -> String {
    parse(text, Path::new("config.toml"))
        .unwrap_err()
        .to_string()
}

/// The packaged file is the reference of every key: it must parse, with each line in it switched
/// on, and it must say the defaults.
#[test]
fn the_packaged_example_is_complete_and_says_the_defaults() {
    let text = include_str!("../../packaging/config.toml");
    let path = Path::new("packaging/config.toml");
    assert_eq!(
        parse(text, path).unwrap(),
        File::default(),
        "as shipped: nothing but comments"
    );
    let on: String = text
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|l| !l.starts_with(' ') && !l.is_empty())
                .unwrap_or(if line.starts_with('#') { "" } else { line })
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let mut file = parse(&on, path).unwrap();
    let example = file
        .repository
        .remove("demo.example.org")
        .expect("an example of a repository");
    assert_eq!(example.allow.len(), 1);
    // those without a default are shown by example
    assert!(file.stage.quota.take().is_some() && file.stage.quota_files.take().is_some());
    assert!(file.stage.backing_max.take().is_some());
    assert!(file.mount.allow_other.take().is_some());
    assert!(file.control.group.take().is_some());
    assert!(file.warm.name.take().is_some());
    assert!(file.warm.broker.take().is_some() && file.warm.broker_ca.take().is_some());
    assert!(file.warm.listen.take().is_some() && file.warm.url.take().is_some());
    assert!(file.cvmfs_root.take().is_some());
    assert!(file.state_dir.take().is_some() && file.mountpoint.take().is_some());
    assert_eq!(file, File::default());
}

#[test]
fn unknown_key_with_line_and_suggestion() {
    let message = refused("log_level = \"info\"\n\n[stage]\nsettel = \"1s\"\n");
    assert!(message.contains("config.toml, line 4"), "{message}");
    assert!(
        message.contains("`settel`") && message.contains("did you mean `settle`?"),
        "{message}"
    );
    let message = refused("[satge]\nsettle = \"1s\"\n");
    assert!(
        message.contains("line 1") && message.contains("did you mean `stage`?"),
        "{message}"
    );
    let message = refused("[repository.\"a.example.org\"]\nquotta = \"1GiB\"\n");
    assert!(
        message.contains("line 2") && message.contains("did you mean `quota`?"),
        "{message}"
    );
    let message = refused("[stage]\nxyzzyxyzzy = 1\n");
    assert!(message.contains("config show"), "{message}");
    let message = refused("[stage]\non_unmount = \"comit\"\n");
    assert!(
        message.contains("line 2") && message.contains("did you mean `commit`?"),
        "{message}"
    );
}

#[test]
fn wrong_units_with_line() {
    let message = refused("[stage]\nquota = 10\n");
    assert!(
        message.contains("line 2") && message.contains("no unit"),
        "{message}"
    );
    let message = refused("[stage]\n\nsettle = \"10MiB\"\n");
    assert!(
        message.contains("line 3") && message.contains("no unit of a duration"),
        "{message}"
    );
    assert!(refused("[stage]\nquota = 1.5\n").contains("line 2"));
}

#[test]
fn values_that_make_no_sense() {
    assert!(refused("[repository.\"not a name\"]\n").contains("not a name"));
    assert!(refused("[stage]\nrefresh_interval = \"0s\"\n").contains("pinned"));
    let allow = "[[repository.\"a.example.org\".allow]]\nmay = [\"commit\"]\n";
    assert!(refused(allow).contains("neither users nor groups"));
    assert!(refused(&format!("{allow}users = [\"a\"]\npath = \"a/b\"\n")).contains("/a/b"));
}

#[test]
fn flags_over_file_over_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places {
        config: dir.path().join("config.toml"),
        state_dir: "/default/state".into(),
        mountpoint: None,
    };
    let none = Overrides::default();
    let settings = Settings::load_at(&none, &places).unwrap();
    assert_eq!(settings.state_dir, Path::new("/default/state"));
    assert_eq!(settings.mountpoint, Path::new("/default/state/mnt"));
    assert!(settings.source.is_none());

    std::fs::write(
        &places.config,
        "state_dir = \"/from/file\"\nmountpoint = \"/m\"\n",
    )
    .unwrap();
    let settings = Settings::load_at(&none, &places).unwrap();
    assert_eq!(settings.state_dir, Path::new("/from/file"));
    assert_eq!(settings.mountpoint, Path::new("/m"));

    let flags = Overrides {
        state_dir: Some("/from/flag".into()),
        ..Overrides::default()
    };
    assert_eq!(
        Settings::load_at(&flags, &places).unwrap().state_dir,
        Path::new("/from/flag")
    );

    let missing = Overrides {
        config: Some(dir.path().join("missing.toml")),
        ..Overrides::default()
    };
    let failure = Settings::load_at(&missing, &places).unwrap_err();
    assert!(failure.to_string().contains("missing.toml"));
}

#[test]
fn a_repository_overrides_the_stage() {
    let text = "[stage]\nsettle = \"1s\"\n[repository.\"a.example.org\"]\nsettle = \"2s\"\non_unmount = \"commit\"\n";
    let settings = Settings {
        source: None,
        state_dir: "/s".into(),
        mountpoint: "/m".into(),
        file: parse(text, Path::new("x")).unwrap(),
        overrides: Overrides::default(),
    };
    assert_eq!(settings.repository("a.example.org").settle.as_secs(), 2);
    assert_eq!(
        settings.repository("a.example.org").on_unmount,
        OnUnmount::Commit
    );
    assert_eq!(settings.repository("b.example.org").settle.as_secs(), 1);
}
