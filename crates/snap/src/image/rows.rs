//! Walking a tree of pages in order of keys.

use super::page::{
    BUCKET_FLAG, ELEMENT_BYTES, FIRST_PAGE, HEADER_BYTES, Header, Kind, u32_at, u64_at,
};
use super::reader::Source;
use crate::{Damage, Error};
use bytes::Bytes;

/// Most levels of a tree: bbolt's branches have two children at least, ours hundreds.
const LEVELS_MAX: usize = 64;
/// Largest run of pages that is read, in bytes: a few of the largest values that a server can be set to take.
const RUN_BYTES_MAX: u64 = 512 << 20;

/// The rows of a bucket, in ascending order of their keys; after an error there is no more.
///
/// What was wrong in the file is found when it is met: page numbers, kinds, sizes, places, and the order of keys, within a page,
/// between pages, and against the branches above. So no page is visited twice, and a walk ends.
pub(super) struct Rows<'a> {
    source: &'a Source,
    /// The way from the root; the last is a leaf, except at the beginning.
    path: Vec<Step>,
    last_key: Option<Bytes>,
    rows_are_buckets: bool,
    pages: Option<&'a mut PageSet>,
    failed: bool,
    /// The page to begin with.
    root: Option<Root>,
}

/// What the rows of a bucket begin with.
pub(super) enum Root {
    Page(u64),
    Inline(Bytes),
}

/// A page on the way.
struct Step {
    page: Page,
    /// The element to look at next.
    next: usize,
    /// No key in the page may reach this one.
    limit: Option<Bytes>,
}

/// A page in memory, its header checked.
pub(super) struct Page {
    /// Its first byte's place in the file; 0 when it stands in a row.
    offset: u64,
    kind: Kind,
    count: usize,
    bytes: Bytes,
}

struct Element {
    flags: u32,
    page: u64,
    key: Bytes,
    value: Bytes,
}

/// Pages that were seen.
pub(super) struct PageSet {
    seen: Vec<u64>,
}

impl PageSet {
    pub(super) fn new(pages: u64) -> PageSet {
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(usize::MAX);
        PageSet {
            seen: vec![0; words],
        }
    }

    /// Adds a page; false when it was there, or there is no such page.
    fn insert(&mut self, page: u64) -> bool {
        let word = usize::try_from(page / 64).unwrap_or(usize::MAX);
        let Some(word) = self.seen.get_mut(word) else {
            return false;
        };
        let bit = 1_u64 << (page % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        source: &'a Source,
        root: Root,
        rows_are_buckets: bool,
        pages: Option<&'a mut PageSet>,
    ) -> Rows<'a> {
        Rows {
            source,
            path: Vec::new(),
            last_key: None,
            rows_are_buckets,
            pages,
            failed: false,
            root: Some(root),
        }
    }

    fn advance(&mut self) -> Result<Option<(Bytes, Bytes)>, Error> {
        if let Some(root) = self.root.take() {
            let page = match root {
                Root::Page(page) => self.read(page)?,
                Root::Inline(bytes) => Page::inline(self.source, bytes)?,
            };
            self.path.push(Step {
                page,
                next: 0,
                limit: None,
            });
        }
        loop {
            let Some(step) = self.path.last_mut() else {
                return Ok(None);
            };
            if step.next >= step.page.count {
                self.path.pop();
                continue;
            }
            let element = step.page.element(self.source, step.next)?;
            step.next += 1;
            let offset = step.page.offset;
            if step
                .limit
                .as_ref()
                .is_some_and(|limit| element.key >= limit)
            {
                return Err(self.source.damage("key is outside of its branch", offset));
            }
            if step.page.kind == Kind::Leaf {
                if self
                    .last_key
                    .as_ref()
                    .is_some_and(|last| element.key <= last)
                {
                    return Err(self.source.damage("keys are out of order", offset));
                }
                if (element.flags == BUCKET_FLAG) != self.rows_are_buckets
                    || element.flags & !BUCKET_FLAG != 0
                {
                    return Err(self.source.damage("row is of another kind", offset));
                }
                self.last_key = Some(element.key.clone());
                return Ok(Some((element.key, element.value)));
            }
            self.descend(&element)?;
        }
    }

    /// Steps into a branch's element, which was checked against the limit above.
    fn descend(&mut self, element: &Element) -> Result<(), Error> {
        let (limit, offset) = {
            let step = self.path.last().expect("just looked at");
            let limit = if step.next < step.page.count {
                Some(step.page.element(self.source, step.next)?.key)
            } else {
                step.limit.clone()
            };
            (limit, step.page.offset)
        };
        if limit.as_ref().is_some_and(|limit| element.key >= limit)
            || self
                .last_key
                .as_ref()
                .is_some_and(|last| element.key <= last)
        {
            return Err(self.source.damage("branches are out of order", offset));
        }
        if self.path.len() >= LEVELS_MAX {
            return Err(self.source.damage("tree has too many levels", offset));
        }
        let page = self.read(element.page)?;
        // Else a branch could lead to the same pages over and over, without a row that shows it.
        if page.count == 0 {
            return Err(self
                .source
                .damage("page below a branch is empty", page.offset));
        }
        let first = page.element(self.source, 0)?.key;
        if first < element.key {
            return Err(self
                .source
                .damage("key is outside of its branch", page.offset));
        }
        self.path.push(Step {
            page,
            next: 0,
            limit,
        });
        Ok(())
    }

    fn read(&mut self, number: u64) -> Result<Page, Error> {
        let page = Page::read(self.source, number)?;
        if let Some(pages) = &mut self.pages {
            for number in number..number + self.source.pages_of(page.bytes.len()) {
                if !pages.insert(number) {
                    return Err(self.source.damage("page is used twice", page.offset));
                }
            }
        }
        Ok(page)
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.advance();
        self.failed = row.is_err();
        row.transpose()
    }
}

impl Page {
    fn read(source: &Source, number: u64) -> Result<Page, Error> {
        let page_bytes = source.page_bytes();
        if number < FIRST_PAGE || number >= source.pages() {
            return Err(Error::ImageDamaged {
                path: source.path().to_owned(),
                damage: Damage {
                    what: "page number is out of bounds",
                    offset: 0,
                    expected: source.pages(),
                    found: number,
                },
            });
        }
        let offset = number * page_bytes;
        let mut bytes = source.read(offset, page_bytes)?;
        let header =
            Header::decode(&bytes).ok_or_else(|| source.damage("page has no header", offset))?;
        if header.page != number {
            return Err(Error::ImageDamaged {
                path: source.path().to_owned(),
                damage: Damage {
                    what: "page has another number",
                    offset,
                    expected: number,
                    found: header.page,
                },
            });
        }
        let count = u64::from(header.overflow) + 1;
        if count > source.pages() - number || count * page_bytes > RUN_BYTES_MAX {
            return Err(source.damage("page does not end in time", offset));
        }
        if count > 1 {
            bytes = source.read(offset, count * page_bytes)?;
        }
        Page::of(source, offset, header, bytes.into())
    }

    fn inline(source: &Source, bytes: Bytes) -> Result<Page, Error> {
        let header =
            Header::decode(&bytes).ok_or_else(|| source.damage("bucket has no page", 0))?;
        let page = Page::of(source, 0, header, bytes)?;
        if page.kind != Kind::Leaf {
            return Err(source.damage("page in a row is no leaf", 0));
        }
        Ok(page)
    }

    fn of(source: &Source, offset: u64, header: Header, bytes: Bytes) -> Result<Page, Error> {
        let kind = Kind::of(header.kind)
            .ok_or_else(|| source.damage("page is of the wrong kind", offset))?;
        let count = usize::from(header.count);
        if HEADER_BYTES + count * ELEMENT_BYTES > bytes.len() {
            return Err(source.damage("page has too many elements", offset));
        }
        Ok(Page {
            offset,
            kind,
            count,
            bytes,
        })
    }

    fn element(&self, source: &Source, position: usize) -> Result<Element, Error> {
        let damage = || source.damage("element is out of its page", self.offset);
        self.try_element(position).ok_or_else(damage)
    }

    /// Reads an element; `None` when what it points to is not behind the elements and in the page.
    fn try_element(&self, position: usize) -> Option<Element> {
        let at = HEADER_BYTES + position * ELEMENT_BYTES;
        let (flags, page, distance, key_bytes, value_bytes) = match self.kind {
            Kind::Branch => (
                0,
                u64_at(&self.bytes, at + 8)?,
                u32_at(&self.bytes, at)?,
                u32_at(&self.bytes, at + 4)?,
                0,
            ),
            Kind::Leaf => (
                u32_at(&self.bytes, at)?,
                0,
                u32_at(&self.bytes, at + 4)?,
                u32_at(&self.bytes, at + 8)?,
                u32_at(&self.bytes, at + 12)?,
            ),
        };
        let size = |number: u32| usize::try_from(number).ok();
        let key_at = at.checked_add(size(distance)?)?;
        let value_at = key_at.checked_add(size(key_bytes)?)?;
        let end = value_at.checked_add(size(value_bytes)?)?;
        let behind_elements = key_at >= HEADER_BYTES + self.count * ELEMENT_BYTES;
        let fits = behind_elements && key_bytes > 0 && end <= self.bytes.len();
        fits.then(|| Element {
            flags,
            page,
            key: self.bytes.slice(key_at..value_at),
            value: self.bytes.slice(value_at..end),
        })
    }
}
