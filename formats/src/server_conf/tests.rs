use super::*;

fn conf(text: &str) -> ServerConf {
    let conf = ServerConf::parse(text.as_bytes()).unwrap();
    assert_eq!(conf.render(), text);
    conf
}

fn in_doubt(text: &str, key: &str) -> bool {
    matches!(
        conf(text).value(key),
        Err(ServerConfError::NotEvaluated { .. })
    )
}

fn golden(repository: &str) -> ServerConf {
    let path = format!(
        "{}/../tests/golden/{repository}/server.conf",
        env!("CARGO_MANIFEST_DIR")
    );
    ServerConf::parse(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn reads_what_a_shell_reads() {
    let conf = conf(concat!(
        "# a comment\n",
        "PLAIN=abc/def:8000\n",
        "  INDENTED=1\n",
        "export EXPORTED=yes\n",
        "export ONE=1 TWO=2 PLAIN\n",
        "A=1; B=2 ;C=3\n",
        "COMMENTED=value # not this\n",
        "HASH=a#b\n",
        "DOUBLE=\"two words \\\" \\$x \\n\"\n",
        "SINGLE='a \"b\" $c'\n",
        "MIXED=a'b c'\"d e\"\\ f\n",
        "LONG=one\\\ntwo\n",
        "LINES=\"1\n2\"\n",
        "EMPTY=\n",
        "ALSO_EMPTY=\"\"\r\n",
        "I=have=equals\n",
        "TWICE=1\n",
        "TWICE=2\n",
        "LAST='no newline'",
    ));
    for (key, value) in [
        ("PLAIN", "abc/def:8000"),
        ("INDENTED", "1"),
        ("EXPORTED", "yes"),
        ("ONE", "1"),
        ("TWO", "2"),
        ("A", "1"),
        ("B", "2"),
        ("C", "3"),
        ("COMMENTED", "value"),
        ("HASH", "a#b"),
        ("DOUBLE", "two words \" $x \\n"),
        ("SINGLE", "a \"b\" $c"),
        ("MIXED", "ab cd e f"),
        ("LONG", "onetwo"),
        ("LINES", "1\n2"),
        ("I", "have=equals"),
        ("TWICE", "2"),
        ("LAST", "no newline"),
    ] {
        assert_eq!(conf.value(key), Ok(Some(value)), "{key}");
    }
    for key in ["EMPTY", "ALSO_EMPTY", "UNHEARD_OF"] {
        assert_eq!(conf.value(key), Ok(None), "{key}");
    }
    assert_eq!(conf.oddities(), []);
}

#[test]
fn what_only_a_shell_could_tell_is_an_error_to_those_who_ask() {
    for text in [
        "K=$HOME/x\n",
        "K=\"${A}\"\n",
        "K=`date`\n",
        "K=~/x\n",
        "K=1\n[ -f /x ] && K=2\n",
        "K=1 command\n",
        "K=(a b)\n",
        "K=1\nif true; then\n  K=2\nfi\n",
        "case x in\n x) K=1;;\nesac\n",
        "f() {\nK=1\n}\n",
        "K+=x\n",
        "K=a&&b\n",
    ] {
        assert!(in_doubt(text, "K"), "{text:?}");
    }
    let conf = conf("echo wait for it\nA=$X\nif x; then y; fi\nK=1\n");
    assert_eq!(conf.value("K"), Ok(Some("1")));
    assert_eq!(conf.get("A"), Some("$X"));
    assert_eq!(conf.oddities().len(), 2);
    let error = conf.value("A").unwrap_err();
    assert!(error.to_string().starts_with("line 2: the value of A"));
}

#[test]
fn an_open_quote_is_an_error_with_its_line() {
    for text in ["A=1\nB='x\ny\n", "A=1\nB=\"x\\\"\n"] {
        assert_eq!(
            ServerConf::parse(text.as_bytes()),
            Err(ServerConfError::OpenQuote { line: 2 })
        );
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(conf("").params().unwrap(), Params::default());
    assert_eq!(
        conf("").name(),
        Err(ServerConfError::Missing("CVMFS_REPOSITORY_NAME"))
    );
}

#[test]
fn the_golden_configurations() {
    let sha1 = golden("sha1");
    let params = sha1.params().unwrap();
    assert_eq!(
        params,
        Params {
            // set twice: the last counts
            chunking: Some(ChunkSizes::new(65_536, 131_072, 262_144).unwrap()),
            include_xattrs: true,
            auto_tag: true,
            ..Params::default()
        }
    );
    assert_eq!(sha1.name().unwrap(), "sha1.example.org");
    assert_eq!(
        sha1.stratum0_url().unwrap(),
        "http://localhost/cvmfs/sha1.example.org"
    );
    assert_eq!(
        sha1.upstream().unwrap(),
        Upstream::Local {
            tmp: "/srv/cvmfs/sha1.example.org/data/txn".into(),
            storage: "/srv/cvmfs/sha1.example.org".into()
        }
    );
    assert_eq!(sha1.oddities(), []);

    let params = |name: &str| golden(name).params().unwrap();
    assert_eq!(params("rmd160").algorithm, Algorithm::Rmd160);
    assert_eq!(params("shake128").algorithm, Algorithm::Shake128);
    assert_eq!(params("uncompressed").compression, Compression::None);
    assert!(params("mtime-ns").mtime_ns);
    assert!(params("garbage-collectable").garbage_collection);
    assert!(!params("garbage-collectable").auto_tag);
    assert_eq!(
        params("autocatalogs").autocatalogs,
        Some(Weights { min: 10, max: 60 })
    );
}

#[test]
fn typed_values() {
    let params = conf(concat!(
        "CVMFS_USE_FILE_CHUNKING=true\n",
        "CVMFS_ENFORCE_LIMITS=true\n",
        "CVMFS_ROOT_KCATALOG_LIMIT=0\n",
        "CVMFS_NESTED_KCATALOG_LIMIT=7\n",
        "CVMFS_FILE_MBYTE_LIMIT=2\n",
        "CVMFS_REPOSITORY_TTL=60\n",
        "CVMFS_AUTO_TAG_TIMESPAN=\"2 weeks ago\"\n",
        "PREPUB_HARDLINKS=groups\n",
        "CVMFS_VOMS_AUTHZ=group\n",
    ))
    .params()
    .unwrap();
    assert_eq!(params.chunking, Some(ChunkSizes::default()));
    assert_eq!(
        params.limits,
        Limits {
            enforce: true,
            root_entries: 0,
            nested_entries: 7000,
            file_bytes: 2 << 20
        }
    );
    assert_eq!(params.ttl_seconds, 60);
    assert_eq!(params.auto_tag_timespan, Timespan::parse("2 weeks ago"));
    assert!(params.hardlink_groups);
    assert_eq!(params.voms_authz.as_deref(), Some("group"));
}

#[test]
fn a_boolean_is_on_only_if_it_is_true() {
    let conf = conf("CVMFS_INCLUDE_XATTRS=yes\nCVMFS_AUTO_TAG=True\nCVMFS_EXTERNAL_DATA=no\n");
    let params = conf.params().unwrap();
    assert!(!params.include_xattrs && !params.auto_tag && !params.external_data);
    let odd = |key, text: &str| Oddity::NotTrue {
        key,
        text: text.to_owned(),
    };
    assert_eq!(
        conf.oddities(),
        [
            odd("CVMFS_INCLUDE_XATTRS", "yes"),
            odd("CVMFS_AUTO_TAG", "True")
        ]
    );
}

#[test]
fn bad_values_are_named() {
    for (text, part) in [
        (
            "CVMFS_REPOSITORY_TTL=4m\n",
            "line 1: CVMFS_REPOSITORY_TTL=\"4m\" is not a number",
        ),
        ("CVMFS_REPOSITORY_TTL=-1\n", "not a number"),
        ("CVMFS_REPOSITORY_TTL=+1\n", "not a number"),
        ("CVMFS_FILE_MBYTE_LIMIT=18446744073709551615\n", "in range"),
        (
            "CVMFS_COMPRESSION_ALGORITHM=zstd\n",
            "default, zlib or none",
        ),
        ("CVMFS_HASH_ALGORITHM=md5\n", "CVMFS_HASH_ALGORITHM"),
        ("PREPUB_HARDLINKS=keep\n", "break or groups"),
        ("CVMFS_INCLUDE_XATTRS=$X\n", "shell code"),
        (
            "CVMFS_USE_FILE_CHUNKING=true\nCVMFS_MIN_CHUNK_SIZE=1\n",
            "CVMFS_MIN_CHUNK_SIZE",
        ),
        (
            "CVMFS_AUTOCATALOGS=true\nCVMFS_AUTOCATALOGS_MAX_WEIGHT=1000\n",
            "CVMFS_AUTOCATALOGS_MIN_WEIGHT",
        ),
    ] {
        let error = conf(text).params().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // sizes do not matter where nothing is cut
    assert!(conf("CVMFS_MIN_CHUNK_SIZE=1\n").params().is_ok());
}

#[test]
fn upstreams() {
    let upstream = |text: &str| conf(&format!("CVMFS_UPSTREAM_STORAGE={text}\n")).upstream();
    assert_eq!(
        upstream("S3,/var/tmp,repo.example.org@/etc/cvmfs/s3.conf"),
        Ok(Upstream::S3 {
            tmp: "/var/tmp".into(),
            alias: "repo.example.org".to_owned(),
            config: "/etc/cvmfs/s3.conf".into()
        })
    );
    assert_eq!(
        upstream("gw,/srv/cvmfs/r/data/txn,http://gateway:4929/api/v1"),
        Ok(Upstream::Gateway {
            tmp: "/srv/cvmfs/r/data/txn".into(),
            url: "http://gateway:4929/api/v1".to_owned()
        })
    );
    for bad in [
        "local,/a",
        "local,/a,/b,/c",
        "s3,/a,b@/c",
        "S3,/a,b",
        "local,,/b",
        "nfs,/a,/b",
    ] {
        assert!(upstream(bad).is_err(), "{bad}");
    }
}

#[test]
fn settings_are_written_where_they_stood() {
    let mut conf = conf("# head\nA=1 # one\nB=2\nif x; then\n C=3\nfi\nA=4");
    conf.set("A", "two words").unwrap();
    conf.set("C", "it's").unwrap();
    conf.set("D", "").unwrap();
    let text = "# head\nA=1 # one\nB=2\nif x; then\n C=3\nfi\nA='two words'\nC='it'\\''s'\nD=\n";
    assert_eq!(conf.render(), text);
    let again = ServerConf::parse(text.as_bytes()).unwrap();
    assert_eq!(again.value("A"), Ok(Some("two words")));
    assert_eq!(again.value("C"), Ok(Some("it's")));
    assert_eq!(conf.value("C"), Ok(Some("it's")));

    for (key, value) in [
        ("1A", "x"),
        ("", "x"),
        ("A B", "x"),
        ("A", "x\ny"),
        ("A", "\0"),
    ] {
        assert!(conf.set(key, value).is_err());
    }
}

#[test]
fn a_new_configuration_can_be_built() {
    let mut conf = ServerConf::default();
    conf.set("CVMFS_REPOSITORY_NAME", "demo.example.org")
        .unwrap();
    conf.set("CVMFS_INCLUDE_XATTRS", "true").unwrap();
    assert_eq!(
        conf.render(),
        "CVMFS_REPOSITORY_NAME=demo.example.org\nCVMFS_INCLUDE_XATTRS=true\n"
    );
    assert!(conf.params().unwrap().include_xattrs);
}
