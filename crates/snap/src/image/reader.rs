//! Opening an image.

use super::hash::{IMAGE_HASH_BYTES, ImageHash};
use super::page::{
    BUCKET_BYTES, FIRST_PAGE, META_BYTES, Meta, MetaFound, NO_FREE_LIST, PAGE_BYTES_READ, VERSION,
    u64_at,
};
use super::rows::{PageSet, Root, Rows};
use crate::{Damage, Error};
use bytes::Bytes;
use quorate_disk::{Disk, File, OpenMode, read_exact_at};
use std::path::{Path, PathBuf};

/// A whole sector; a file with this many bytes left over has a hash behind its image. Source: etcd v3.7.1 `hasChecksum`.
const SECTOR_BYTES: u64 = 512;
const HASH_BYTES: u64 = IMAGE_HASH_BYTES as u64;
/// Most buckets of an image; etcd's has ten.
const BUCKETS_MAX: usize = 256;
/// Most bytes of a bucket's row: a quarter of the largest page.
const BUCKET_ROW_BYTES_MAX: usize = BUCKET_BYTES + 65_536 / 4;
/// Bytes that are hashed at a time.
const HASH_STEP_BYTES: u64 = 1 << 20;

/// Reads an image of etcd's database.
pub struct ImageReader {
    source: Source,
    buckets: Vec<Bucket>,
}

struct Bucket {
    name: Bytes,
    page: u64,
    inline: Bytes,
}

/// The file and what its meta page says.
pub(super) struct Source {
    file: Box<dyn File>,
    path: PathBuf,
    meta: Meta,
    /// Bytes of the file without the hash behind the image.
    len: u64,
    has_hash: bool,
}

/// Whether the hash behind an image is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// It is.
    Whole,
    /// The image or the hash is damaged.
    Broken,
    /// There is none: the file is a copy of a member's own.
    Absent,
}

impl ImageReader {
    /// Opens an image, with or without a hash behind it.
    ///
    /// # Errors
    /// [`Error::NotAnImage`], [`Error::NewerImage`], [`Error::ImageDamaged`], [`Error::Io`].
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<ImageReader, Error> {
        let io = |source| Error::Io {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let file = disk.open(path, OpenMode::Read).map_err(io)?;
        let mut len = file.len().map_err(io)?;
        let has_hash = len % SECTOR_BYTES == HASH_BYTES;
        if has_hash {
            len -= HASH_BYTES;
        }
        let meta = find_meta(&*file, path, len)?;
        let source = Source {
            file,
            path: path.to_owned(),
            meta,
            len,
            has_hash,
        };
        source.check_meta()?;
        let mut buckets = Vec::new();
        for row in Rows::new(&source, Root::Page(meta.root), true, None) {
            let (name, row) = row?;
            buckets.push(Bucket::of(&source, name, &row)?);
            if buckets.len() > BUCKETS_MAX {
                return Err(source.damage("image has too many buckets", 0));
            }
        }
        Ok(ImageReader { source, buckets })
    }

    /// Returns the names of the buckets, in order.
    pub fn buckets(&self) -> impl Iterator<Item = &[u8]> {
        self.buckets.iter().map(|bucket| &bucket.name[..])
    }

    /// Reads the rows of a bucket; none when there is no such bucket.
    pub fn rows(&self, bucket: &[u8]) -> impl Iterator<Item = Result<(Bytes, Bytes), Error>> {
        let bucket = self.buckets.iter().find(|found| found.name == bucket);
        let rows = bucket.map(|bucket| Rows::new(&self.source, bucket.root(), false, None));
        rows.into_iter().flatten()
    }

    /// Returns the bytes of the image: its pages, without free space at the file's end and without the hash.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.source.meta.pages * self.source.page_bytes()
    }

    /// Reads all pages in use and checks what can be checked of them, among it that no two buckets share a page.
    ///
    /// # Errors
    /// [`Error::ImageDamaged`], [`Error::Io`].
    pub fn check(&self) -> Result<(), Error> {
        let mut pages = PageSet::new(self.source.meta.pages);
        let root = Root::Page(self.source.meta.root);
        for row in Rows::new(&self.source, root, true, Some(&mut pages)) {
            row?;
        }
        for bucket in &self.buckets {
            for row in Rows::new(&self.source, bucket.root(), false, Some(&mut pages)) {
                row?;
            }
        }
        Ok(())
    }

    /// Reads the whole file and compares it with the hash behind it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn check_seal(&self) -> Result<Seal, Error> {
        if !self.source.has_hash {
            return Ok(Seal::Absent);
        }
        let mut hash = ImageHash::default();
        let mut offset = 0;
        while offset < self.source.len {
            let step = HASH_STEP_BYTES.min(self.source.len - offset);
            hash.update(&self.source.read(offset, step)?);
            offset += step;
        }
        let expected = self.source.read(self.source.len, HASH_BYTES)?;
        Ok(if expected == hash.finish() {
            Seal::Whole
        } else {
            Seal::Broken
        })
    }
}

impl std::fmt::Debug for ImageReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageReader")
            .field("path", &self.source.path)
            .field("meta", &self.source.meta)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    fn of(source: &Source, name: Bytes, row: &Bytes) -> Result<Bucket, Error> {
        let page = u64_at(row, 0);
        let (Some(page), true) = (
            page,
            (BUCKET_BYTES..=BUCKET_ROW_BYTES_MAX).contains(&row.len()),
        ) else {
            return Err(source.damage("row is no bucket", 0));
        };
        // Copied, so that the page it comes from can go.
        Ok(Bucket {
            name: Bytes::copy_from_slice(&name),
            page,
            inline: Bytes::copy_from_slice(row.get(BUCKET_BYTES..).unwrap_or_default()),
        })
    }

    fn root(&self) -> Root {
        match self.page {
            0 => Root::Inline(self.inline.clone()),
            page => Root::Page(page),
        }
    }
}

impl Source {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn pages(&self) -> u64 {
        self.meta.pages
    }

    pub(super) fn page_bytes(&self) -> u64 {
        u64::from(self.meta.page_bytes)
    }

    /// Returns how many pages these bytes are.
    pub(super) fn pages_of(&self, bytes: usize) -> u64 {
        u64::try_from(bytes)
            .unwrap_or(u64::MAX)
            .div_ceil(self.page_bytes())
    }

    pub(super) fn damage(&self, what: &'static str, offset: u64) -> Error {
        Error::ImageDamaged {
            path: self.path.clone(),
            damage: Damage {
                what,
                offset,
                expected: 0,
                found: 0,
            },
        }
    }

    pub(super) fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, Error> {
        let mut out = vec![0; usize::try_from(bytes).unwrap_or(0)];
        read_exact_at(&*self.file, &mut out, offset).map_err(|source| Error::Io {
            action: "read",
            path: self.path.clone(),
            source,
        })?;
        Ok(out)
    }

    fn check_meta(&self) -> Result<(), Error> {
        let Meta {
            page_bytes,
            root,
            free_list,
            pages,
            ..
        } = self.meta;
        if !page_bytes.is_power_of_two() || !PAGE_BYTES_READ.contains(&page_bytes) {
            return Err(self.damage("pages have an impossible size", 24));
        }
        let whole = pages.checked_mul(u64::from(page_bytes));
        if whole.is_none_or(|whole| whole > self.len) {
            return Err(Error::ImageDamaged {
                path: self.path.clone(),
                damage: Damage {
                    what: "file is cut short",
                    offset: 56,
                    expected: whole.unwrap_or(u64::MAX),
                    found: self.len,
                },
            });
        }
        let in_bounds = |page: u64| (FIRST_PAGE..pages).contains(&page);
        if !in_bounds(root) || !(free_list == NO_FREE_LIST || in_bounds(free_list)) {
            return Err(self.damage("page number is out of bounds", 32));
        }
        Ok(())
    }
}

/// Reads both meta pages and takes the newer that is whole.
fn find_meta(file: &dyn File, path: &Path, len: u64) -> Result<Meta, Error> {
    let first = read_meta(file, path, 0, len)?;
    let sizes = PAGE_BYTES_READ;
    let second_places: Vec<u32> = match first {
        MetaFound::Whole(meta) => vec![meta.page_bytes],
        // The first page is lost and with it the size of pages: the second is at one of these places.
        _ => sizes.filter(|size| size.is_power_of_two()).collect(),
    };
    let mut best = first;
    for place in second_places {
        let second = read_meta(file, path, u64::from(place), len)?;
        best = match (best, second) {
            (MetaFound::Whole(first), MetaFound::Whole(second))
                if second.transaction > first.transaction =>
            {
                MetaFound::Whole(second)
            }
            (MetaFound::Whole(_), _) | (_, MetaFound::Foreign) => best,
            (_, second) => second,
        };
    }
    match best {
        MetaFound::Whole(meta) => Ok(meta),
        MetaFound::OtherVersion(found) => Err(Error::NewerImage {
            path: path.to_owned(),
            found,
            supported: VERSION,
        }),
        MetaFound::Damaged => Err(Error::ImageDamaged {
            path: path.to_owned(),
            damage: Damage {
                what: "neither meta page has the right checksum",
                offset: 0,
                expected: 0,
                found: 0,
            },
        }),
        MetaFound::Foreign => Err(Error::NotAnImage {
            path: path.to_owned(),
        }),
    }
}

fn read_meta(file: &dyn File, path: &Path, offset: u64, len: u64) -> Result<MetaFound, Error> {
    let mut bytes = [0; META_BYTES];
    let end = offset + u64::try_from(META_BYTES).unwrap_or(u64::MAX);
    if end > len {
        return Ok(MetaFound::Foreign);
    }
    read_exact_at(file, &mut bytes, offset).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    Ok(Meta::decode(&bytes))
}
