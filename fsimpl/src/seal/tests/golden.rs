//! The trees of the golden repositories become exactly the objects that the official tools made.

use std::process::Command;

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

/// Makes the golden tree of revision 1 or 2; none where the machine lacks what that needs.
fn make_tree(dir: &Path) -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: the golden tree has devices and foreign owners, which need root");
        return false;
    }
    for tool in ["openssl", "setfattr", "setcap", "python3"] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output();
        if !found.is_ok_and(|o| o.status.success()) {
            eprintln!("skipped: the golden tree is made with {tool}, which is not installed");
            return false;
        }
    }
    script("make-tree.sh", dir)
}

fn script(name: &str, dir: &Path) -> bool {
    let output = Command::new(format!("{GOLDEN}/{name}"))
        .arg(dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    true
}

/// The parameters of a golden repository; its chunk sizes stand at the end of the file, a second time.
fn params(folder: &str) -> SealParams {
    let conf = std::fs::read(format!("{GOLDEN}/{folder}/server.conf")).unwrap();
    SealParams::from(&ServerConf::parse(&conf).unwrap().params().unwrap())
}

fn official(folder: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("{GOLDEN}/{folder}/objects.txt")).unwrap();
    let is_content = |path: &&str| !path.ends_with(['C', 'H', 'X', 'M']);
    text.lines()
        .filter(is_content)
        .map(ToOwned::to_owned)
        .collect()
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files_below(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// Seals every file below `dir`.
fn seal_tree(sealer: &Sealer, dir: &Path, params: &SealParams) -> BTreeSet<String> {
    let mut files = Vec::new();
    files_below(dir, &mut files);
    let mut heard = Vec::new();
    for (id, path) in (0..).zip(files) {
        let (mut job, hear, objects) = job(path.clone(), params.clone());
        job.id = id;
        sealer.submit(job);
        heard.push((path, hear, objects));
    }
    let mut names = BTreeSet::new();
    for (path, heard, objects) in heard {
        let sealed = hear(&heard).unwrap();
        let read = read_back(&*objects, params.compression, &sealed.content);
        assert!(read == std::fs::read(&path).unwrap(), "{}", path.display());
        names.extend(sealed.content.objects().map(|name| name.storage_path()));
    }
    names
}

#[test]
fn golden_trees_become_the_official_objects() {
    let tree = tempfile::tempdir().unwrap();
    if !make_tree(tree.path()) {
        return;
    }
    let sealer = sealer(4);
    let folders = [
        "sha1",
        "rmd160",
        "shake128",
        "uncompressed",
        "garbage-collectable",
        "mtime-ns",
        "autocatalogs",
    ];
    let first: Vec<_> = folders
        .iter()
        .map(|f| seal_tree(&sealer, tree.path(), &params(f)))
        .collect();
    script("change-tree.sh", tree.path());
    for (folder, mut made) in folders.iter().zip(first) {
        let params = params(folder);
        made.extend(seal_tree(&sealer, tree.path(), &params));
        // what mkfs wrote is in no tree
        let official = official(folder);
        let missing: Vec<_> = official.difference(&made).collect();
        let extra: Vec<_> = made.difference(&official).collect();
        assert!(extra.is_empty(), "{folder}: {extra:?}");
        assert!(missing.len() <= 1, "{folder}: {missing:?}");
    }
}
