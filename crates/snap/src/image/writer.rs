//! Laying out an image from front to back.

use super::page::{
    BUCKET_BYTES, BUCKET_FLAG, ELEMENT_BYTES, FIRST_PAGE, HEADER_BYTES, Header, Kind, Meta,
    NO_FREE_LIST, PAGE_BYTES,
};
use crate::Error;
use std::io::{self, Write};

/// Largest key, in bytes. Source: bbolt v1.5.0 bucket.go `MaxKeySize`.
const KEY_BYTES_MAX: usize = 32_768;
/// Largest value, in bytes. Source: bbolt v1.5.0 bucket.go `MaxValueSize`.
const VALUE_BYTES_MAX: usize = (1 << 31) - 2;
/// Largest page that may stand in its bucket's row, in bytes. Source: bbolt v1.5.0 bucket.go `maxInlineBucketSize`.
const INLINE_BYTES_MAX: usize = PAGE_BYTES / 4;
/// Fewest children of a branch; bbolt's deletions rely on it. Source: bbolt v1.5.0 node.go `minKeys`.
const CHILDREN_MIN: usize = 2;
/// Transaction id of the first meta page; the second has the one before, as in a copy that bbolt makes of itself.
const TRANSACTION: u64 = 2;

/// What must be known of an image before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pages: u64,
    root: u64,
}

impl Layout {
    /// Returns the size of the image in bytes, without the hash behind it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_SIZE
    }
}

const PAGE_SIZE: u64 = PAGE_BYTES as u64;

/// Writes an image as a stream: the same rows always make the same bytes.
///
/// The first page says where the last one is, so rows are pushed twice: into a writer from [`measure`](ImageWriter::measure),
/// whose end gives the [`Layout`], and then into one from [`new`](ImageWriter::new). Memory: one page of each level of a tree, and
/// the row.
///
/// ```
/// use quorate_snap::ImageWriter;
/// # fn fill<W: std::io::Write>(image: &mut ImageWriter<W>) -> Result<(), quorate_snap::Error> {
/// #     image.bucket(b"key")?;
/// #     image.row(b"a", b"1")
/// # }
/// let mut measured = ImageWriter::measure();
/// fill(&mut measured)?;
/// let (_, layout) = measured.finish()?;
///
/// let mut image = ImageWriter::new(Vec::new(), layout)?;
/// fill(&mut image)?;
/// let (bytes, _) = image.finish()?;
/// assert_eq!(bytes.len() as u64, layout.bytes());
/// # Ok::<(), quorate_snap::Error>(())
/// ```
pub struct ImageWriter<W> {
    pages: Pages<W>,
    expected: Option<Layout>,
    root: Tree,
    open: Option<OpenBucket>,
    last_bucket: Vec<u8>,
}

struct OpenBucket {
    tree: Tree,
    last_key: Vec<u8>,
}

/// Where whole pages go.
struct Pages<W> {
    out: W,
    /// Whether pages are only counted, for which of a leaf no more is kept than its sizes and its first key.
    only_counts: bool,
    next: u64,
    /// The page being written, kept for its memory.
    buffer: Vec<u8>,
}

/// A B+tree of which only the last page of each level is not written yet; leaves first.
struct Tree {
    levels: Vec<Node>,
}

/// A page in the making.
#[derive(Default)]
struct Node {
    elements: Vec<Element>,
    data: Vec<u8>,
    /// What `data` has, or would have if pages were not only counted.
    data_bytes: usize,
}

struct Element {
    flags: u32,
    page: u64,
    key_bytes: usize,
    value_bytes: usize,
}

impl ImageWriter<io::Sink> {
    /// Makes a writer that only counts.
    #[must_use]
    pub fn measure() -> ImageWriter<io::Sink> {
        ImageWriter::with(io::sink(), None)
    }
}

impl<W: Write> ImageWriter<W> {
    /// Makes a writer of an image that was measured, and writes its first two pages.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn new(out: W, layout: Layout) -> Result<ImageWriter<W>, Error> {
        let mut image = ImageWriter::with(out, Some(layout));
        for page in 0..FIRST_PAGE {
            let meta = Meta {
                page_bytes: u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX),
                root: layout.root,
                free_list: NO_FREE_LIST,
                pages: layout.pages,
                transaction: TRANSACTION - page,
            };
            let mut bytes = Vec::with_capacity(PAGE_BYTES);
            meta.encode(page, &mut bytes);
            bytes.resize(PAGE_BYTES, 0);
            image.pages.out.write_all(&bytes).map_err(Error::Output)?;
        }
        Ok(image)
    }

    fn with(out: W, expected: Option<Layout>) -> ImageWriter<W> {
        ImageWriter {
            pages: Pages {
                out,
                only_counts: expected.is_none(),
                next: FIRST_PAGE,
                buffer: Vec::new(),
            },
            expected,
            root: Tree::new(),
            open: None,
            last_bucket: Vec::new(),
        }
    }

    /// Returns where the bytes go.
    pub fn output(&mut self) -> &mut W {
        &mut self.pages.out
    }

    /// Begins the next bucket.
    ///
    /// # Errors
    /// [`Error::Output`].
    ///
    /// # Panics
    /// When the names of buckets are not in ascending order.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.close_bucket()?;
        assert!(
            name > self.last_bucket.as_slice(),
            "buckets come in order of their names"
        );
        self.last_bucket.clear();
        self.last_bucket.extend_from_slice(name);
        self.open = Some(OpenBucket {
            tree: Tree::new(),
            last_key: Vec::new(),
        });
        Ok(())
    }

    /// Adds a row to the bucket begun last.
    ///
    /// # Errors
    /// [`Error::UnfitRow`] when the format cannot hold it, [`Error::Output`].
    ///
    /// # Panics
    /// When there is no bucket or the keys are not in ascending order.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(Error::UnfitRow {
                key_bytes: key.len(),
                value_bytes: value.len(),
            });
        }
        let open = self.open.as_mut().expect("rows come behind a bucket");
        assert!(
            key > open.last_key.as_slice(),
            "rows come in order of their keys"
        );
        open.last_key.clear();
        open.last_key.extend_from_slice(key);
        open.tree.push(&mut self.pages, 0, key, value)
    }

    /// Ends the image; returns where it went and what it has become.
    ///
    /// # Errors
    /// [`Error::Output`]; [`Error::LayoutChanged`] when the rows were not those that were measured: what was written is of no use.
    pub fn finish(mut self) -> Result<(W, Layout), Error> {
        self.close_bucket()?;
        let root = self.root.finish(&mut self.pages)?;
        let layout = Layout {
            pages: self.pages.next,
            root,
        };
        if self.expected.is_some_and(|expected| expected != layout) {
            return Err(Error::LayoutChanged);
        }
        Ok((self.pages.out, layout))
    }

    fn close_bucket(&mut self) -> Result<(), Error> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let mut row = Vec::with_capacity(BUCKET_BYTES);
        if let Some(leaf) = open.tree.only_leaf().filter(|leaf| leaf.fits_inline()) {
            row.resize(BUCKET_BYTES, 0);
            leaf.encode(0, Kind::Leaf, 0, &mut row);
            row.resize(BUCKET_BYTES + leaf.bytes(), 0);
        } else {
            let root = open.tree.finish(&mut self.pages)?;
            row.extend(root.to_le_bytes());
            row.resize(BUCKET_BYTES, 0);
        }
        let name = std::mem::take(&mut self.last_bucket);
        self.root.push(&mut self.pages, BUCKET_FLAG, &name, &row)?;
        self.last_bucket = name;
        Ok(())
    }
}

impl Tree {
    fn new() -> Tree {
        Tree {
            levels: vec![Node::default()],
        }
    }

    fn only_leaf(&self) -> Option<&Node> {
        match self.levels.as_slice() {
            [leaf] => Some(leaf),
            _ => None,
        }
    }

    fn push<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        flags: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Error> {
        let leaf = self.levels.first_mut().expect("a tree has leaves");
        if !leaf.elements.is_empty() && !leaf.takes(key.len() + value.len()) {
            let (first_key, page) = pages.write(leaf, Kind::Leaf)?;
            leaf.clear();
            self.push_child(pages, 1, &first_key, page)?;
        }
        let leaf = self.levels.first_mut().expect("a tree has leaves");
        if pages.only_counts && !leaf.elements.is_empty() {
            leaf.count(flags, key, value);
        } else {
            leaf.push(flags, 0, key, value);
        }
        Ok(())
    }

    /// Adds a written page to the branch above it; a full one is written first, but for its last child, so that the next
    /// one, too, gets as many as a branch must have.
    fn push_child<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        level: usize,
        key: &[u8],
        page: u64,
    ) -> Result<(), Error> {
        if self.levels.len() == level {
            self.levels.push(Node::default());
        }
        let branch = self.levels.get_mut(level).expect("just made");
        let written = if branch.elements.len() > CHILDREN_MIN && !branch.takes(key.len()) {
            let last = branch.split_last();
            let written = pages.write(branch, Kind::Branch)?;
            *branch = last;
            Some(written)
        } else {
            None
        };
        branch.push(0, page, key, &[]);
        match written {
            Some((first_key, page)) => self.push_child(pages, level + 1, &first_key, page),
            None => Ok(()),
        }
    }

    /// Writes what is not written yet and returns the page of the tree.
    fn finish<W: Write>(&mut self, pages: &mut Pages<W>) -> Result<u64, Error> {
        let mut level = 0;
        loop {
            let node = std::mem::take(self.levels.get_mut(level).expect("not the last level"));
            let kind = if level == 0 { Kind::Leaf } else { Kind::Branch };
            assert!(
                level == 0 || node.elements.len() >= CHILDREN_MIN,
                "a branch has children"
            );
            let (first_key, page) = pages.write(&node, kind)?;
            level += 1;
            if self.levels.len() == level {
                return Ok(page);
            }
            self.push_child(pages, level, &first_key, page)?;
        }
    }
}

impl Node {
    fn bytes(&self) -> usize {
        HEADER_BYTES + self.elements.len() * ELEMENT_BYTES + self.data_bytes
    }

    fn takes(&self, more_bytes: usize) -> bool {
        self.bytes() + ELEMENT_BYTES + more_bytes <= PAGE_BYTES
    }

    fn fits_inline(&self) -> bool {
        self.bytes() <= INLINE_BYTES_MAX
    }

    fn clear(&mut self) {
        self.elements.clear();
        self.data.clear();
        self.data_bytes = 0;
    }

    fn push(&mut self, flags: u32, page: u64, key: &[u8], value: &[u8]) {
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        self.add(flags, page, key.len(), value.len());
    }

    /// Adds a row without its bytes.
    fn count(&mut self, flags: u32, key: &[u8], value: &[u8]) {
        self.add(flags, 0, key.len(), value.len());
    }

    fn add(&mut self, flags: u32, page: u64, key_bytes: usize, value_bytes: usize) {
        self.elements.push(Element {
            flags,
            page,
            key_bytes,
            value_bytes,
        });
        self.data_bytes += key_bytes + value_bytes;
    }

    /// Takes the last element into a node of its own.
    fn split_last(&mut self) -> Node {
        let last = self
            .elements
            .pop()
            .expect("only a node with elements is split");
        let bytes = last.key_bytes + last.value_bytes;
        let data = self.data.split_off(self.data.len() - bytes);
        self.data_bytes -= bytes;
        Node {
            elements: vec![last],
            data_bytes: bytes,
            data,
        }
    }

    fn first_key(&self) -> Vec<u8> {
        let bytes = self.elements.first().map_or(0, |first| first.key_bytes);
        self.data.get(..bytes).unwrap_or_default().to_vec()
    }

    fn encode(&self, page: u64, kind: Kind, overflow: u32, out: &mut Vec<u8>) {
        let header = Header {
            page,
            kind: kind.number(),
            count: u16::try_from(self.elements.len()).expect("a page has few elements"),
            overflow,
        };
        header.encode(out);
        let mut before = 0;
        for (position, element) in self.elements.iter().enumerate() {
            let distance = (self.elements.len() - position) * ELEMENT_BYTES + before;
            match kind {
                Kind::Leaf => {
                    out.extend(element.flags.to_le_bytes());
                    out.extend(u32_of(distance).to_le_bytes());
                    out.extend(u32_of(element.key_bytes).to_le_bytes());
                    out.extend(u32_of(element.value_bytes).to_le_bytes());
                }
                Kind::Branch => {
                    out.extend(u32_of(distance).to_le_bytes());
                    out.extend(u32_of(element.key_bytes).to_le_bytes());
                    out.extend(element.page.to_le_bytes());
                }
            }
            before += element.key_bytes + element.value_bytes;
        }
        out.extend_from_slice(&self.data);
    }
}

impl<W: Write> Pages<W> {
    /// Writes a node and returns its first key and its page.
    fn write(&mut self, node: &Node, kind: Kind) -> Result<(Vec<u8>, u64), Error> {
        let count = node.bytes().div_ceil(PAGE_BYTES);
        let page = self.next;
        if !self.only_counts {
            self.buffer.clear();
            node.encode(page, kind, u32_of(count - 1), &mut self.buffer);
            self.buffer.resize(count * PAGE_BYTES, 0);
            self.out.write_all(&self.buffer).map_err(Error::Output)?;
        }
        self.next += u64::from(u32_of(count));
        Ok((node.first_key(), page))
    }
}

/// Narrows a size inside a page; rows are limited so that it fits.
fn u32_of(size: usize) -> u32 {
    u32::try_from(size).expect("the size of a row is limited")
}
