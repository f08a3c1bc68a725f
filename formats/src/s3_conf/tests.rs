use super::*;

const LEAST: &str = "CVMFS_S3_HOST=s3.example.org\nCVMFS_S3_BUCKET=software\n";

fn with(more: &str) -> Result<S3Conf, S3ConfError> {
    S3Conf::parse(format!("{LEAST}{more}").as_bytes())
}

#[test]
fn the_defaults_are_the_official_ones() {
    let conf = with("").unwrap();
    assert_eq!(
        conf,
        S3Conf {
            host: "s3.example.org".into(),
            https: false,
            bucket: "software".into(),
            dns_buckets: true,
            key: None,
            region: None,
            timeout_seconds: 60,
            retries: 3,
            connections: 16,
            peek: true,
            acl: CannedAcl::PublicRead,
            proxy: None,
        }
    );
    assert_eq!(conf.endpoint(), "http://s3.example.org");
    assert_eq!(conf.acl.header(), Some("public-read"));
}

#[test]
fn every_key_is_read() {
    let conf = S3Conf::parse(
        br#"
            # as sites write them
            CVMFS_S3_HOST="localhost"
            CVMFS_S3_PORT=9000
            CVMFS_S3_USE_HTTPS=true
            CVMFS_S3_BUCKET=https-bucket
            CVMFS_S3_DNS_BUCKETS=false
            CVMFS_S3_ACCESS_KEY='AKIA'
            CVMFS_S3_SECRET_KEY='a/b+c=='
            CVMFS_S3_REGION=eu-central-1
            CVMFS_S3_FLAVOR=awsv4
            CVMFS_S3_TIMEOUT=5
            CVMFS_S3_MAX_RETRIES=0
            CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS=4
            CVMFS_S3_PEEK_BEFORE_PUT=off
            CVMFS_S3_X_AMZ_ACL=
            CVMFS_S3_PROXY=http://squid:3128
        "#,
    )
    .unwrap();
    assert_eq!(conf.endpoint(), "https://localhost:9000");
    let key = conf.key.as_ref().unwrap();
    assert_eq!((&*key.id, &*key.secret), ("AKIA", "a/b+c=="));
    assert_eq!(conf.region.as_deref(), Some("eu-central-1"));
    assert_eq!(
        (conf.timeout_seconds, conf.retries, conf.connections),
        (5, 0, 4)
    );
    assert!(!conf.dns_buckets && !conf.peek);
    assert_eq!(conf.acl, CannedAcl::None);
    assert_eq!(conf.acl.header(), None);
    assert_eq!(conf.proxy.as_deref(), Some("http://squid:3128"));
}

#[test]
fn switches_are_read_as_the_official_tool_does() {
    for (text, on) in [
        ("true", true),
        ("ON", true),
        ("1", true),
        ("yes", true),
        ("2", false),
    ] {
        let conf = with(&format!("CVMFS_S3_USE_HTTPS={text}\n")).unwrap();
        assert_eq!(conf.https, on, "{text}");
    }
    for (text, on) in [("false", false), ("no", true), ("off", true)] {
        let conf = with(&format!("CVMFS_S3_DNS_BUCKETS={text}\n")).unwrap();
        assert_eq!(conf.dns_buckets, on, "{text}");
    }
}

#[test]
fn every_canned_acl_has_its_header() {
    for (name, header) in [
        ("private", "private"),
        ("public-write", "public-read-write"),
        ("bucket-owner-full-control", "bucket-owner-full-control"),
    ] {
        let conf = with(&format!("CVMFS_S3_X_AMZ_ACL={name}\n")).unwrap();
        assert_eq!(conf.acl.header(), Some(header));
    }
}

#[test]
fn what_is_missing_is_named() {
    let error = S3Conf::parse(b"CVMFS_S3_BUCKET=b\n").unwrap_err();
    assert_eq!(error, ServerConfError::Missing("CVMFS_S3_HOST").into());
    let error = S3Conf::parse(b"CVMFS_S3_HOST=h\n").unwrap_err();
    assert_eq!(error, ServerConfError::Missing("CVMFS_S3_BUCKET").into());
    let error = with("CVMFS_S3_SECRET_KEY=tell-nobody\n")
        .unwrap_err()
        .to_string();
    assert!(error.contains("CVMFS_S3_ACCESS_KEY is not"), "{error}");
    assert!(!error.contains("tell-nobody"), "{error}");
    let error = with("CVMFS_S3_ACCESS_KEY=id\n").unwrap_err().to_string();
    assert!(error.contains("CVMFS_S3_SECRET_KEY is not"), "{error}");
}

#[test]
fn where_it_is_read_and_written_down() {
    let conf = with("CVMFS_S3_PORT=9000\n").unwrap();
    assert_eq!(conf.url("a/b"), "http://software.s3.example.org:9000/a/b");
    let conf = with("CVMFS_S3_DNS_BUCKETS=false\nCVMFS_S3_USE_HTTPS=on\n").unwrap();
    assert_eq!(conf.url("a"), "https://s3.example.org/software/a");
    let region = Some("eu-west-1".to_owned());
    let place = S3Conf::of_place("s3.org:9000".into(), true, "b".into(), region);
    let written = place.render_place().unwrap();
    assert_eq!(S3Conf::parse(written.as_bytes()), Ok(place));
    assert_eq!(
        S3Conf::parse(conf.render_place().unwrap().as_bytes()),
        Ok(conf)
    );
}

#[test]
fn azure_is_refused_by_name() {
    let error = with("CVMFS_S3_FLAVOR=azure\n").unwrap_err();
    assert_eq!(error, S3ConfError::Azure);
    assert!(with("CVMFS_S3_FLAVOR=awsv2\n").is_ok());
}

#[test]
fn nonsense_is_an_error_of_its_key() {
    for line in [
        "CVMFS_S3_FLAVOR=gcs",
        "CVMFS_S3_HOST=http://s3.example.org",
        "CVMFS_S3_HOST=s3.example.org/path",
        "CVMFS_S3_HOST='a b'",
        "CVMFS_S3_PORT=0",
        "CVMFS_S3_PORT=65536",
        "CVMFS_S3_PORT=http",
        "CVMFS_S3_BUCKET=a/b",
        "CVMFS_S3_BUCKET=..",
        "CVMFS_S3_REGION='eu west'",
        "CVMFS_S3_TIMEOUT=0",
        "CVMFS_S3_TIMEOUT=99999999999999999999",
        "CVMFS_S3_TIMEOUT=-1",
        "CVMFS_S3_MAX_RETRIES=101",
        "CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS=0",
        "CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS=1025",
        "CVMFS_S3_X_AMZ_ACL=everybody",
    ] {
        let key = line.split('=').next().unwrap();
        let error = with(&format!("{line}\n")).unwrap_err();
        let S3ConfError::Conf(ServerConfError::BadValue { key: named, .. }) = &error else {
            panic!("{line}: {error}");
        };
        assert_eq!(named, key);
    }
}

#[test]
fn a_secret_is_not_told() {
    let conf = with("CVMFS_S3_ACCESS_KEY=id\nCVMFS_S3_SECRET_KEY=tell-nobody\n").unwrap();
    assert!(!format!("{conf:?}").contains("tell-nobody"));
    let error = with("CVMFS_S3_ACCESS_KEY=id\nCVMFS_S3_SECRET_KEY=\"tell$nobody\"\n");
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("CVMFS_S3_SECRET_KEY") && !error.contains("tell"),
        "{error}"
    );
}
