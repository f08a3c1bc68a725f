use super::*;

fn dirtab(text: &str) -> Dirtab {
    Dirtab::parse(text.as_bytes()).unwrap()
}

fn error(text: &str) -> String {
    Dirtab::parse(text.as_bytes()).unwrap_err().to_string()
}

fn check(rules: &str, yes: &[&str], no: &[&str]) {
    let dirtab = dirtab(rules);
    for path in yes {
        assert!(dirtab.matches(&path.parse().unwrap()), "{path} in {rules}");
    }
    for path in no {
        assert!(!dirtab.matches(&path.parse().unwrap()), "{path} in {rules}");
    }
}

#[test]
fn comments_and_blank_lines_are_no_rules() {
    for text in ["", "  \n\n    \n", "# a\n #b\n # c\n", "!\n ! \n"] {
        assert!(dirtab(text).is_empty(), "{text:?}");
        assert!(!dirtab(text).matches(&RepoPath::root()));
        assert!(!dirtab(text).may_match_below(&RepoPath::root()));
    }
}

// the cases of CVMFS's t_dirtab.cc and t_pathspec.cc that apply to directories found in a tree

#[test]
fn positive_rules() {
    check(
        "# these are positive rules:\n/usr/*\n/usr/local/*\n\n",
        &["/usr/local", "/usr/bin", "/usr/local/lib", "/usr/.hidden"],
        &["", "/usr", "/usr/local/bin/x86", "/opt"],
    );
    check(
        "/hallo/welt.*\n /fo*o/b*r \n\t\n/x//y/\n",
        &[
            "/hallo/welt.",
            "/hallo/welt.foo",
            "/foo/br",
            "/fo12o/baaar",
            "/x/y",
        ],
        &["/hallo/welt", "/foo/b", "/foo/bar/test", "/fo/bar", "/x"],
    );
    check(
        "/w.???\n/foo/?bar\n",
        &["/w.txt", "/foo/1bar", "/foo/?bar", "/foo/\\bar"],
        &["/w.jpeg", "/w.so", "/foo/bar"],
    );
}

#[test]
fn negative_rules() {
    let rules = "/usr/*\n/usr/local/*\n\n! /usr/.svn\n! /usr/local/.git\n !  /usr/local/x86*\n";
    check(
        rules,
        &["/usr/local", "/usr/svn", "/usr/.git", "/usr/local/git"],
        &[
            "/usr",
            "/usr/.svn",
            "/usr/local/.git",
            "/usr/local/x86",
            "/usr/local/x86_64",
        ],
    );
    check("! /usr/*\n! x\n", &[], &["/usr", "/usr/lib", "/x"]);
    // across slashes
    check(
        "/usr/*\n/usr/*/*\n! *.exe\n! */include/*.hpp\n! /usr/bi?\n",
        &[
            "/usr/sh",
            "/usr/include/a.h",
            "/usr/root.exe.bak",
            "/usr/binary",
            "/usr/bi",
        ],
        &[
            "/usr/a.exe",
            "/usr/b/a.exe",
            "/usr/include/a.hpp",
            "/usr/bin",
            "/usr/bit",
        ],
    );
    check(
        "/a/*\n/a/*/*\n! */skip\n",
        &["/a/b", "/a/skipped"],
        &["/a/skip", "/a/b/skip"],
    );
    // a relative rule without a star in front never fits an absolute path
    check("/a/*\n! b\n! a/b\n", &["/a/b"], &[]);
    check("/a/*\n! *a*b*\n", &["/a/c"], &["/a/b", "/a/xbx"]);
    // no bracket expressions there
    check("/a/*\n! /a/[bc]\n", &["/a/b"], &["/a/[bc]"]);
}

#[test]
fn escapes() {
    check("/a\\*/b\\?\n", &["/a*/b?"], &["/aa/bb", "/a\\*/b?"]);
    check(
        "/*\n! /a\\*\n! /b\\\\c\n",
        &["/aa", "/bc"],
        &["/a*", "/b\\c"],
    );
    // as the official tool: the pattern that reaches glob(3) has one backslash, before the c
    check("/b\\\\c\n", &["/bc"], &["/b\\c"]);
    // a backslash that ends an element is dropped
    check("/ab\\/c\n", &["/ab/c"], &[]);
    check("/ab\\\\/c\n", &[], &["/ab/c", "/ab\\/c"]);
}

#[test]
fn brackets_in_positive_rules() {
    check(
        "/r[0-9]\n",
        &["/r0", "/r9"],
        &["/ra", "/r", "/r[0-9]", "/r-"],
    );
    check("/r[!0-9]\n/s[^a]\n", &["/ra", "/sb"], &["/r0", "/sa"]);
    check(
        "/[]a]\n/x[a-]\n",
        &["/]", "/a", "/x-", "/xa"],
        &["/[]a]", "/xb"],
    );
    check("/[[:digit:]x]\n", &["/5", "/x"], &["/a", "/:"]);
    check("/[[:nope:]\n", &["/[", "/n", "/:"], &["/x"]);
    check("/a[b\n", &["/a[b"], &["/ab"]);
    check("/a[]\n", &["/a[]"], &["/a"]);
    check("/v[*?]\n", &["/v*", "/v?"], &["/vx"]);
    check("/*[0-9]*z\n", &["/a1z", "/1z", "/a1b2z"], &["/az", "/1"]);
    check("/[z-a]\n", &[], &["/a", "/z"]);
}

#[test]
fn odd_bytes_are_bytes() {
    let dirtab = Dirtab::parse(b"/\xff?*\n").unwrap();
    assert!(dirtab.matches(&RepoPath::new(b"/\xff\xfe").unwrap()));
    assert!(dirtab.matches(&RepoPath::new(b"/\xffa b\x01").unwrap()));
    assert!(!dirtab.matches(&RepoPath::new(b"/\xff").unwrap()));
    check("/*\n", &["/\u{e4}", "/a\nb"], &[]);
    check("/?\n", &["/a"], &["/\u{e4}"]);
}

#[test]
fn bad_rules_void_the_file_and_are_named() {
    assert!(error("/a\n\nhallo/welt\n").contains("line 3: \"hallo/welt\" must begin"));
    assert!(error("! /usr/\\bin\n").contains("line 1"));
    assert!(error("/usr/\\bin\n").contains("backslash"));
    assert!(error("/\n").contains("names no directory"));
    assert!(error("/a/\\\n").contains("backslash"));
    assert!(error("/a\0b\n").contains("NUL"));
    assert!(error(&format!("/{}\n", "a".repeat(5000))).contains("longer"));
    assert!(error("\t# no comment\n").contains("must begin"));
    assert_eq!(
        error("/usr/bin/*\n\n# negative\n!/usr//bin/*/"),
        ".cvmfsdirtab: \"/usr//bin/*/\" stands on line 1, and with a ! on line 4"
    );
    // not the same rule
    assert!(!dirtab("/a/b\n! a/b\n! /a/?\n").is_empty());
}

#[test]
fn where_it_is_worth_looking() {
    let dirtab = dirtab("/a/*/c\n/x\n");
    for (path, expected) in [
        ("", true),
        ("/a", true),
        ("/a/b", true),
        ("/a/b/c", false),
        ("/a/b/d", false),
        ("/x", false),
        ("/b", false),
    ] {
        assert_eq!(
            dirtab.may_match_below(&path.parse().unwrap()),
            expected,
            "{path}"
        );
    }
}

#[test]
fn hostile_patterns_take_no_time() {
    let rule = format!("/{}b\n! {}b\n", "*a".repeat(500), "*a".repeat(500));
    let path: RepoPath = format!("/{}", "a".repeat(255)).parse().unwrap();
    assert!(!dirtab(&rule).matches(&path));
    let rule = format!("/*{}[:alpha:]\n", "[".repeat(1000));
    let path: RepoPath = format!("/{}", "[".repeat(255)).parse().unwrap();
    assert!(!dirtab(&rule).matches(&path));
}
