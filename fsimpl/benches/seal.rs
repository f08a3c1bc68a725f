//! Sealing against the compressor: how much of what the cores could compress is sealed.
//!
//! One run, one machine: first every core compresses the files' bytes from memory, then the same
//! files are sealed from disk into a directory of objects. `cargo bench -p prepub-fsimpl --bench seal`.
#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use formats::chunk::ChunkSizes;
use formats::compress::compress_into;
use formats::object::Compression;
use fsimpl::seal::{
    CancelToken, Generation, RawHash, SealJob, SealParams, Sealer, SealerLimits, Source,
};
use store::{DirStore, Durability, ObjectStore};

const MIB: f64 = (1 << 20) as f64;

/// Text and binary noise in turns: packs about as software does, to a third.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = Vec::with_capacity(length + 64);
    while out.len() < length {
        let random = next();
        match random % 16 {
            0..=1 => out.extend_from_slice(&next().to_le_bytes()),
            2..=5 => out.extend_from_slice(
                format!("value_{:x} = {};\n", random >> 50, random % 97).as_bytes(),
            ),
            _ => {
                let words: [&[u8]; 8] = [
                    b"static const ",
                    b"return ",
                    b"unsigned int ",
                    b"namespace detail ",
                    b"}\n\n",
                    b"    if (result != 0) {\n",
                    b"#include <",
                    b"template ",
                ];
                out.extend_from_slice(words[(random >> 8) as usize % words.len()]);
            }
        }
    }
    out.truncate(length);
    out
}

struct Files {
    dir: tempfile::TempDir,
    paths: Vec<PathBuf>,
    bytes: u64,
}

fn files(count: usize, length: impl Fn(usize) -> usize) -> Files {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut bytes = 0;
    let paths = (0..count)
        .map(|n| {
            let path = dir.path().join(n.to_string());
            let content = content(n as u64 + 1, length(n));
            bytes += content.len() as u64;
            fs::write(&path, content).expect("space for the files");
            path
        })
        .collect();
    Files { dir, paths, bytes }
}

/// Processor seconds that this process has used: on a busy machine they tell more than the clock.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // after the name, which may hold anything: fields 14 and 15, in hundredths
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

struct Compressing {
    rate: f64,
    processor: f64,
}

/// Compresses the files out of memory, on all cores.
fn compressor(files: &Files, cores: usize) -> Compressing {
    let contents: Vec<Vec<u8>> = files
        .paths
        .iter()
        .map(|path| fs::read(path).expect("just written"))
        .collect();
    // large files in pieces, so that no core is left with the last one
    let pieces: Vec<&[u8]> = contents
        .iter()
        .flat_map(|content| content.chunks(4 << 20))
        .collect();
    let next = AtomicUsize::new(0);
    let (begun, used) = (Instant::now(), processor_seconds());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut packed = Vec::new();
                while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                    packed.clear();
                    compress_into(Compression::Zlib, piece, &mut packed);
                }
            });
        }
    });
    Compressing {
        rate: files.bytes as f64 / begun.elapsed().as_secs_f64(),
        processor: processor_seconds() - used,
    }
}

struct Sealing {
    seconds: f64,
    processor: f64,
    busy: f64,
    stored: u64,
}

fn seal(files: &Files, workers: usize) -> Sealing {
    let sealer = Sealer::new(SealerLimits {
        workers,
        ..SealerLimits::default()
    })
    .expect("threads");
    let objects = tempfile::tempdir().expect("a temporary directory");
    let store = DirStore::create(objects.path().join("objects"), Durability::Batch);
    let objects: Arc<dyn ObjectStore> = Arc::new(store.expect("a store"));
    let params = Arc::new(SealParams {
        chunking: Some(ChunkSizes::default()),
        ..SealParams::default()
    });
    let sealed = Arc::new(AtomicUsize::new(0));
    let (begun, used) = (Instant::now(), processor_seconds());
    for (id, path) in (0..).zip(&files.paths) {
        let sealed = sealed.clone();
        sealer.submit(SealJob {
            id,
            source: Source::Path(path.clone()),
            size_hint: 0,
            params: params.clone(),
            objects: objects.clone(),
            cancel: CancelToken::new(),
            generation: Generation::default(),
            not_before: begun,
            urgent: false,
            known: Arc::new(|_: &RawHash| None),
            done: Box::new(move |result| {
                sealed.fetch_add(usize::from(result.is_ok()), Ordering::Relaxed);
            }),
        });
    }
    assert!(sealer.wait_idle(Duration::MAX));
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(sealed.load(Ordering::Relaxed), files.paths.len());
    let metrics = sealer.metrics();
    let busy: Duration = metrics.busy.iter().sum();
    Sealing {
        seconds,
        processor: processor_seconds() - used,
        busy: busy.as_secs_f64() / (seconds * workers as f64),
        stored: metrics.stored_bytes,
    }
}

fn report(chosen: &[String], what: &str, files: &Files, cores: usize) {
    if !chosen.is_empty() && !chosen.iter().any(|word| what.contains(word.as_str())) {
        return;
    }
    let could = compressor(files, cores);
    let did = seal(files, cores);
    let rate = files.bytes as f64 / did.seconds;
    println!(
        "{what:<16} {:>6} files {:>5.0} MiB | zlib on {cores} cores {:>6.1} MiB/s | sealed {:>6.1} MiB/s = \
         {:>5.1} % by the clock, {:>5.1} % by processor time | workers busy {:>5.1} % | stored {:>4.1} %",
        files.paths.len(),
        files.bytes as f64 / MIB,
        could.rate / MIB,
        rate / MIB,
        100.0 * rate / could.rate,
        100.0 * could.processor / did.processor,
        100.0 * did.busy,
        100.0 * did.stored as f64 / files.bytes as f64,
    );
}

/// The process's largest memory so far, in MiB.
fn peak_memory() -> f64 {
    let status = fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    number.unwrap_or(0.0) / 1024.0
}

fn main() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // any word given chooses the runs whose name has it
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let small = files(20_000, |n| 500 + n * 7919 % 16_000);
    let medium = files(300, |n| 200_000 + n * 7919 % 700_000);
    let large = files(1, |_| 300 << 20);
    report(&chosen, "small files", &small, cores);
    report(&chosen, "medium files", &medium, cores);
    report(&chosen, "one large file", &large, cores);
    println!(
        "peak memory {:.0} MiB, the compressor's copy of the files included",
        peak_memory()
    );
    let path = small.dir.path().join("sparse");
    fs::File::create(&path)
        .and_then(|f| f.set_len(20 << 30))
        .expect("sparse files");
    let hole = Files {
        dir: small.dir,
        paths: vec![path],
        bytes: 20 << 30,
    };
    let did = seal(&hole, cores);
    println!(
        "20 GiB of hole: {:.2} s, {} bytes stored",
        did.seconds, did.stored
    );
}
