use super::*;

fn text(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| b"abcdefgh"[(i * i / 7 + i / 100) % 8])
        .collect()
}

fn error_of(stored: &[u8]) -> DecompressError {
    decompress_all(Compression::Zlib, stored, 1 << 20).unwrap_err()
}

#[test]
fn an_empty_file_has_the_known_stream() {
    let expected = [0x78, 0x9c, 0x03, 0, 0, 0, 0, 1];
    assert_eq!(compress(Compression::Zlib, b""), expected);
    assert_eq!(
        Compressor::new(Compression::Zlib, Vec::new())
            .finish()
            .unwrap(),
        expected
    );
    assert!(compress(Compression::None, b"").is_empty());
}

#[test]
fn the_stream_does_not_depend_on_pieces_flushes_or_what_came_before() {
    for size in [1, 100, 65_536, 300_000] {
        let data = text(size);
        let expected = compress(Compression::Zlib, &data);
        for piece in [1, 7, 16_384, size] {
            if size / piece > 10_000 {
                continue;
            }
            let mut writer = Compressor::new(Compression::Zlib, Vec::new());
            for part in data.chunks(piece) {
                writer.write_all(part).unwrap();
                writer.flush().unwrap();
            }
            // another stream that is given up half-way must leave no trace
            let mut dropped = Compressor::new(Compression::Zlib, Vec::new());
            dropped.write_all(&data).unwrap();
            drop(dropped);
            assert_eq!(
                writer.finish().unwrap(),
                expected,
                "{size} bytes by {piece}"
            );
        }
    }
}

#[test]
fn reads_back_what_it_wrote() {
    for how in [Compression::Zlib, Compression::None] {
        for size in [0, 1, 70_000, 1_000_000] {
            let data = text(size);
            let stored = compress(how, &data);
            assert_eq!(decompress_all(how, &stored, size).unwrap(), data);
            if size > 0 {
                assert_eq!(
                    decompress_all(how, &stored, size - 1),
                    Err(DecompressError::TooLong(size - 1))
                );
            }
        }
    }
}

#[test]
fn a_sink_that_fails_is_reported() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for how in [Compression::Zlib, Compression::None] {
        let mut writer = Compressor::new(how, Full);
        let outcome = writer
            .write_all(&text(10))
            .and_then(|()| writer.finish().map(drop));
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}

#[test]
fn truncated_corrupt_and_overlong_streams_are_told_apart() {
    let stored = compress(Compression::Zlib, &text(5000));
    for cut in 0..stored.len() {
        assert_eq!(
            error_of(&stored[..cut]),
            DecompressError::Truncated,
            "at {cut}"
        );
    }
    let mut long = stored.clone();
    long.push(0);
    assert_eq!(error_of(&long), DecompressError::Trailing);
    let mut twice = stored.clone();
    twice.extend_from_slice(&stored);
    assert_eq!(error_of(&twice), DecompressError::Trailing);
    let mut bad_sum = stored.clone();
    *bad_sum.last_mut().unwrap() ^= 1;
    assert_eq!(error_of(&bad_sum), DecompressError::Corrupt);
    assert_eq!(error_of(b"no zlib at all"), DecompressError::Corrupt);
    // a preset dictionary is nothing a repository has
    assert_eq!(
        error_of(&[0x78, 0xbb, 0, 0, 0, 1, 3, 0]),
        DecompressError::Corrupt
    );
}

#[test]
fn an_error_stays_an_error() {
    let mut reader = decompress(Compression::Zlib, &b"no zlib"[..]);
    for _ in 0..3 {
        let error = reader.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
    assert_eq!(reader.read(&mut []).unwrap(), 0);
}

#[test]
fn reads_from_a_source_that_dribbles_and_interrupts() {
    struct Dribble<'a>(&'a [u8], bool);
    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let n = self.0.len().min(out.len()).min(3);
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }
    let data = text(100_000);
    let stored = compress(Compression::Zlib, &data);
    let mut content = Vec::new();
    decompress(Compression::Zlib, Dribble(&stored, false))
        .read_to_end(&mut content)
        .unwrap();
    assert!(content == data);
}
