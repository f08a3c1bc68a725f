use super::*;

fn refused(text: &str) -> String {
    let error = Config::parse(text, Path::new("receiver.toml")).unwrap_err();
    error.to_string()
}

/// The packaged file is the reference of every key: it must parse, with each line in it switched
/// on, and it must say the defaults.
#[test]
fn the_packaged_example_is_complete_and_says_the_defaults() {
    let text = include_str!("../../../packaging/receiver.toml");
    let path = Path::new("packaging/receiver.toml");
    assert_eq!(Config::parse(text, path).unwrap(), Config::default());
    let on: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            Some(_) => "\n".into(),
            None => format!("{line}\n"),
        })
        .collect();
    let written: toml::Table = on.parse().unwrap();
    let mut config = Config::parse(&on, path).unwrap();
    // those without a default are shown by example
    let example = config.repository.remove("sw.example.org").unwrap();
    assert!(example.storage.is_some() && example.spool.is_some());
    assert!(config.cvmfs_root.take().is_some() && config.url.take().is_some());
    assert!(!std::mem::take(&mut config.snapshot.command).is_empty());
    assert_eq!(config, Config::default());
    let every = toml::Table::try_from(Config::default()).unwrap();
    for (key, value) in &every {
        let Some(section) = value.as_table() else {
            assert!(written.contains_key(key), "{key} is not shown");
            continue;
        };
        for key_in in section.keys() {
            let shown = written[key].as_table().unwrap().contains_key(key_in);
            assert!(shown, "[{key}] {key_in} is not shown");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let message = refused("state_dir = \"/s\"\n\n[keep]\nheadrom = \"1GiB\"\n");
    assert!(
        message.contains("line 4") && message.contains("headrom"),
        "{message}"
    );
    let message = refused("[keep]\nheadroom = 10\n");
    assert!(
        message.contains("line 2") && message.contains("no unit"),
        "{message}"
    );
    assert!(refused("[repository.\"sw\"]\n").contains("in full"));
    let message = refused("[repository.\"a.b\"]\nstorage = \"srv/cvmfs\"\n");
    assert!(message.contains("absolute"), "{message}");
    assert!(refused("[limits]\nbundles = 0\n").contains("[limits]"));
    assert!(refused("listen = \"here\"\n").contains("no address"));
    let none = Config::parse("listen = \"\"\n", Path::new("x")).unwrap();
    assert_eq!(none.listen, None);
}
