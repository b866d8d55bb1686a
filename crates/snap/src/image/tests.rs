use super::*;
use crate::Error;
use bytes::Bytes;
use quorate_disk::{Disk, OpenMode, SimDisk};
use std::collections::BTreeMap;
use std::path::Path;

type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

const PATH: &str = "/image";

fn fill<W: std::io::Write>(image: &mut ImageWriter<W>, buckets: &Buckets) {
    for (name, rows) in buckets {
        image.bucket(name).unwrap();
        for (key, value) in rows {
            image.row(key, value).unwrap();
        }
    }
}

fn write(buckets: &Buckets) -> Vec<u8> {
    let mut measured = ImageWriter::measure();
    fill(&mut measured, buckets);
    let (_, layout) = measured.finish().unwrap();
    let mut image = ImageWriter::new(Vec::new(), layout).unwrap();
    fill(&mut image, buckets);
    let (bytes, found) = image.finish().unwrap();
    assert_eq!(found, layout);
    assert_eq!(u64::try_from(bytes.len()).unwrap(), layout.bytes());
    bytes
}

fn disk_with(bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new(PATH), OpenMode::Create).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    disk
}

/// Reads everything there is, as an importer would.
fn read(bytes: &[u8]) -> Result<Buckets, Error> {
    let disk = disk_with(bytes);
    let image = ImageReader::open(&disk, Path::new(PATH))?;
    let mut buckets = Buckets::new();
    for name in image.buckets() {
        let rows: Result<BTreeMap<_, _>, Error> = image
            .rows(name)
            .map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect();
        buckets.insert(name.to_vec(), rows?);
    }
    image.check()?;
    Ok(buckets)
}

fn rows(count: u32, value_bytes: impl Fn(u32) -> usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    (0..count)
        .map(|n| {
            let byte = u8::try_from(n % 251).unwrap();
            (n.to_be_bytes().to_vec(), vec![byte; value_bytes(n)])
        })
        .collect()
}

/// A small image with a tree of two levels, rows larger than a page, inline and empty buckets.
fn sample() -> Buckets {
    Buckets::from([
        (b"alarm".to_vec(), BTreeMap::new()),
        (b"auth".to_vec(), rows(2, |_| 1)),
        (
            b"key".to_vec(),
            rows(40, |n| if n == 7 { 9_000 } else { 300 }),
        ),
        (b"members".to_vec(), rows(1, |_| 1_200)),
        (b"meta".to_vec(), rows(5, |_| 0)),
    ])
}

#[test]
fn what_is_written_is_read_back() {
    let mut many = sample();
    many.insert(b"lease".to_vec(), rows(100_000, |_| 20));
    for buckets in [Buckets::new(), sample(), many] {
        let bytes = write(&buckets);
        assert_eq!(write(&buckets), bytes);
        assert!(read(&bytes).unwrap() == buckets);
    }
}

#[test]
fn long_keys_make_branches_of_two_children_at_least() {
    for (count, key_bytes) in [(9_u8, 32_768), (30, 3_000), (200, 1_500), (250, 40)] {
        let rows: BTreeMap<Vec<u8>, Vec<u8>> = (0..count)
            .map(|n| (vec![n + 1; key_bytes], vec![n; 10]))
            .collect();
        let buckets = Buckets::from([(b"key".to_vec(), rows)]);
        assert!(read(&write(&buckets)).unwrap() == buckets, "{count}");
    }
}

#[test]
fn random_buckets_survive() {
    let mut state = 7_u64;
    let mut random = move |limit: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % limit
    };
    for _ in 0..40 {
        let mut buckets = Buckets::new();
        for bucket in 0..random(6) {
            let count = random(400);
            let largest = [8, 100, 2_000, 20_000][usize::try_from(random(4)).unwrap()];
            let rows = (0..count)
                .map(|_| {
                    let key = vec![
                        u8::try_from(random(250)).unwrap();
                        usize::try_from(random(60) + 1).unwrap()
                    ];
                    (key, vec![1; usize::try_from(random(largest)).unwrap()])
                })
                .collect();
            buckets.insert(vec![u8::try_from(bucket + 1).unwrap()], rows);
        }
        assert!(read(&write(&buckets)).unwrap() == buckets);
    }
}

#[test]
fn rows_that_do_not_fit_and_other_rows_than_measured_are_refused() {
    let mut image = ImageWriter::measure();
    image.bucket(b"key").unwrap();
    assert!(matches!(image.row(b"", b""), Err(Error::UnfitRow { .. })));
    let long = vec![1; 32_769];
    assert!(matches!(image.row(&long, b""), Err(Error::UnfitRow { .. })));

    let mut measured = ImageWriter::measure();
    fill(&mut measured, &sample());
    let (_, layout) = measured.finish().unwrap();
    let mut image = ImageWriter::new(Vec::new(), layout).unwrap();
    fill(
        &mut image,
        &Buckets::from([(b"key".to_vec(), rows(9, |_| 900))]),
    );
    assert!(matches!(image.finish(), Err(Error::LayoutChanged)));
}

#[test]
#[should_panic(expected = "rows come in order")]
fn rows_out_of_order_are_a_broken_promise() {
    let mut image = ImageWriter::measure();
    image.bucket(b"key").unwrap();
    image.row(b"b", b"").unwrap();
    let _ = image.row(b"a", b"");
}

/// Damage to values, to bytes without a meaning and to the older meta page cannot be seen: bbolt has checksums of its meta pages only.
/// Nothing may panic, hang or take much memory, and whatever is read is in order.
#[test]
fn every_flipped_byte_is_an_error_or_harmless() {
    let whole = sample();
    let bytes = write(&whole);
    let mut refused = 0;
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[at] ^= flip;
            match read(&bad) {
                Err(Error::ImageDamaged { .. } | Error::NotAnImage { .. }) => refused += 1,
                Err(other) => panic!("byte {at}: {other}"),
                Ok(_) => {}
            }
        }
    }
    assert!(refused > 1_000, "{refused}");
    // All of the root page's and a branch's numbers matter.
    let root = bytes.len() - 4096;
    for at in (root..root + 12).chain(8192..8192 + 12) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x40;
        assert!(read(&bad).is_err(), "byte {at}");
    }
}

#[test]
fn images_cut_short_are_refused() {
    let bytes = write(&sample());
    for len in (0..bytes.len()).step_by(512).chain([1, 79, 80, 4097]) {
        let error = read(&bytes[..len]).unwrap_err();
        let expected = matches!(error, Error::ImageDamaged { .. } | Error::NotAnImage { .. });
        assert!(expected, "{len}: {error}");
    }
}

#[test]
fn one_meta_page_is_enough() {
    let bytes = write(&sample());
    for page in [0, 4096] {
        let mut bad = bytes.clone();
        bad[page..page + 80].fill(0xee);
        assert!(read(&bad).unwrap() == sample());
    }
    let mut bad = bytes;
    bad[70] ^= 1;
    bad[4096 + 70] ^= 1;
    let message = read(&bad).unwrap_err().to_string();
    assert!(message.contains("checksum"), "{message}");
}

#[test]
fn other_versions_and_other_files_are_told_apart() {
    let mut bytes = write(&sample());
    for page in [0, 4096] {
        bytes[page + 20] = 3;
        let sum = bytes[page + 16..page + 72]
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        bytes[page + 72..page + 80].copy_from_slice(&sum.to_le_bytes());
    }
    assert!(matches!(
        read(&bytes),
        Err(Error::NewerImage { found: 3, .. })
    ));
    assert!(matches!(read(&[0; 9_000]), Err(Error::NotAnImage { .. })));
    assert!(matches!(read(b"text"), Err(Error::NotAnImage { .. })));
}

/// A branch that leads to itself, or to one page twice, must not be followed for ever.
#[test]
fn cycles_and_shared_pages_are_refused() {
    let buckets = Buckets::from([(b"key".to_vec(), rows(60, |_| 300))]);
    let bytes = write(&buckets);
    let branch = (2..bytes.len() / 4096)
        .map(|page| page * 4096)
        .find(|at| bytes[at + 8] == 1)
        .unwrap();
    let page = u64::try_from(branch / 4096).unwrap();
    for (element, target) in [
        (0, page),
        (1, page),
        (1, 2),
        (0, 3),
        (0, 0),
        (0, 1),
        (0, 1 << 40),
    ] {
        let mut bad = bytes.clone();
        let at = branch + 16 + element * 16 + 8;
        bad[at..at + 8].copy_from_slice(&target.to_le_bytes());
        let error = read(&bad).unwrap_err();
        assert!(
            matches!(error, Error::ImageDamaged { .. }),
            "{element} {target}: {error}"
        );
    }
    // Two buckets on one tree: each is in order, both together are not.
    let two = Buckets::from([
        (b"a".to_vec(), rows(60, |_| 300)),
        (b"b".to_vec(), rows(60, |_| 300)),
    ]);
    let mut bad = write(&two);
    let root = bad.len() - 4096;
    let rows_at = root + 16 + 2 * 16;
    bad.copy_within(rows_at + 1..rows_at + 9, rows_at + 18);
    let message = read(&bad).unwrap_err().to_string();
    assert!(message.contains("used twice"), "{message}");
}

#[test]
fn hash_behind_the_image_is_checked() {
    let image = write(&sample());
    let open = |bytes: &[u8]| ImageReader::open(&disk_with(bytes), Path::new(PATH)).unwrap();
    assert_eq!(open(&image).check_seal().unwrap(), Seal::Absent);
    let mut hash = ImageHash::default();
    hash.update(&image);
    let sealed = [&image[..], &hash.finish()].concat();
    assert!(read(&sealed).unwrap() == sample());
    assert_eq!(open(&sealed).check_seal().unwrap(), Seal::Whole);
    assert_eq!(open(&sealed).bytes(), u64::try_from(image.len()).unwrap());
    for at in [9_000, image.len() - 1, sealed.len() - 1] {
        let mut bad = sealed.clone();
        bad[at] ^= 4;
        assert_eq!(open(&bad).check_seal().unwrap(), Seal::Broken);
    }
    let rows: Vec<(Bytes, Bytes)> = open(&sealed).rows(b"none").map(Result::unwrap).collect();
    assert_eq!(rows, []);
}
