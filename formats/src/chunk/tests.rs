use super::*;

#[path = "vectors.rs"]
mod vectors;

/// The rule, byte by byte, as the module head states it.
fn naive_cuts(data: &[u8], sizes: ChunkSizes) -> Vec<u64> {
    let threshold = (u64::from(u32::MAX) / sizes.avg) as i32;
    let (mut cuts, mut last, mut checksum) = (Vec::new(), 0, 0_u32);
    for (i, byte) in (0_u64..).zip(data) {
        if i - last == sizes.max {
            cuts.push(i);
            (last, checksum) = (i, 0);
        }
        let offset = i - last;
        if offset + WINDOW < sizes.min {
            continue;
        }
        checksum = (checksum << 1) ^ u32::from(*byte);
        let difference = (checksum as i32).wrapping_sub(0x7fff_ffff);
        if offset >= sizes.min && difference.wrapping_abs() < threshold {
            cuts.push(i);
            // with the smallest minimum, the byte that cut is also the window's first
            (last, checksum) = (i, 0);
            if sizes.min == WINDOW {
                checksum = u32::from(*byte);
            }
        }
    }
    cuts
}

/// The cuts when the data arrives in pieces of the given lengths, over and over.
fn cuts(data: &[u8], sizes: ChunkSizes, pieces: &[usize]) -> Vec<u64> {
    let mut chunker = Xor32::new(sizes);
    let (mut cuts, mut done) = (Vec::new(), 0_u64);
    let mut rest = data;
    for piece in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (mut now, later) = rest.split_at((*piece).min(rest.len()));
        rest = later;
        while let Some(n) = chunker.scan(now) {
            done += n as u64;
            cuts.push(done);
            now = &now[n..];
        }
        done += now.len() as u64;
    }
    cuts
}

/// The generator of CernVM-FS's unit tests: TAoCP volume 2's linear congruence.
fn generated(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[test]
fn checksum_vectors() {
    let mut checksum = 0_u32;
    for (byte, after) in vectors::CHECKSUMS {
        checksum = (checksum << 1) ^ u32::from(*byte);
        assert_eq!(checksum, *after);
    }
}

#[test]
fn cut_vectors() {
    let sizes = ChunkSizes::new(512_000, 1_024_000, 2_048_000).unwrap();
    let data = generated(42, 100 << 20);
    for piece in [102_400, 10_485_760] {
        assert_eq!(
            cuts(&data, sizes, &[piece]),
            vectors::CUTS,
            "pieces of {piece}"
        );
    }
}

#[test]
fn data_without_hits_is_cut_at_the_maximum_and_not_at_its_end() {
    let sizes = ChunkSizes::new(100, 200, 400).unwrap();
    assert_eq!(cuts(&[0; 1200], sizes, &[7]), [400, 800]);
    assert_eq!(cuts(&[0; 1200], sizes, &[400]), [400, 800]);
    assert_eq!(cuts(&[0; 1201], sizes, &[400]), [400, 800, 1200]);
}

#[test]
fn ones_are_cut_at_the_minimum() {
    // 32 bytes of 1 make a checksum of all ones, whose distance from the magic value wraps
    let sizes = ChunkSizes::new(65_536, 131_072, 262_144).unwrap();
    assert_eq!(
        cuts(&[1; 200_000], sizes, &[1000]),
        [65_536, 131_072, 196_608]
    );
}

#[test]
fn agrees_with_the_naive_rule_however_the_data_is_split() {
    for (seed, sizes) in [
        (1, (32, 33, 34)),
        (2, (32, 64, 128)),
        (3, (33, 40, 500)),
        (4, (100, 1000, 5000)),
        (5, (500, 501, 20_000)),
        (6, (64, 1 << 33, 1 << 40)),
    ] {
        let sizes = ChunkSizes::new(sizes.0, sizes.1, sizes.2).unwrap();
        let random = generated(seed, 60_000);
        // few values, so that checksums near the magic value are common
        let sparse: Vec<u8> = random.iter().map(|b| u8::from(*b > 8)).collect();
        for data in [random.as_slice(), sparse.as_slice()] {
            let expected = naive_cuts(data, sizes);
            let odd: Vec<usize> = data[..50].iter().map(|b| usize::from(*b) + 1).collect();
            for pieces in [&[usize::MAX][..], &[1], &[31, 32, 33], &[4096], &odd] {
                assert_eq!(cuts(data, sizes, pieces), expected, "{sizes:?}");
            }
            let mut last = 0;
            for cut in expected {
                assert!(cut - last >= sizes.min && cut - last <= sizes.max);
                last = cut;
            }
        }
    }
}

#[test]
fn refuses_sizes_out_of_order() {
    for (min, avg, max) in [(31, 64, 128), (64, 64, 128), (64, 128, 128), (0, 0, 0)] {
        assert!(ChunkSizes::new(min, avg, max).is_err());
    }
    assert!(!ChunkSizes::default().may_cut(4 << 20));
    assert!(ChunkSizes::default().may_cut((4 << 20) + 1));
}

#[test]
fn zeros_need_not_be_read() {
    let noise = generated(9, 4000);
    for sizes in [(32, 33, 34), (64, 100, 1000), (100, 5000, 9000)] {
        let sizes = ChunkSizes::new(sizes.0, sizes.1, sizes.2).unwrap();
        for hole in [1_usize, 5, 31, 32, 33, 900, 20_000] {
            let mut data = noise.clone();
            data.resize(noise.len() + hole, 0);
            data.extend_from_slice(&noise);

            let mut chunker = Xor32::new(sizes);
            let (mut made, mut done) = (Vec::new(), 0_u64);
            for part in [Some(&noise), None, Some(&noise)] {
                let mut left = part.map_or(hole as u64, |p| p.len() as u64);
                while left > 0 {
                    let cut = match part {
                        Some(p) => chunker
                            .scan(&p[p.len() - left as usize..])
                            .map(|n| n as u64),
                        None => chunker.scan_zeros(left),
                    };
                    let taken = cut.unwrap_or(left);
                    done += taken;
                    left -= taken;
                    if cut.is_some() {
                        made.push(done);
                    }
                }
            }
            assert_eq!(made, naive_cuts(&data, sizes), "{sizes:?}, hole of {hole}");
        }
    }
}
