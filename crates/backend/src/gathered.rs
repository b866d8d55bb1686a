//! Pages that were written and are not in the file yet: gathered until the next sync, so that neighbours go out in one write.
//!
//! redb hands its dirty pages over one by one, in an order of its own, and nothing says that a page must be in the file
//! before the sync that follows. Fewer, larger, ascending writes cost a fraction of the system's time.

use std::collections::BTreeMap;
use std::io;

use parking_lot::RwLock;
use quorate_disk::{File, read_exact_at};

use crate::pages::{PAGE, PAGE_BYTES, page_offset};

/// Pages held at most (8 MiB); when there are more all are written.
const PAGES_MAX: usize = 2048;
/// Pages of one write at most.
const RUN_PAGES: usize = 256;
/// Bytes from which on pages that come together are written as they are.
const DIRECT_BYTES: usize = 64 << 10;

/// The pages, by number. One thread at a time writes; any number read.
#[derive(Default)]
pub(crate) struct GatheredPages {
    pages: RwLock<BTreeMap<u64, Box<[u8]>>>,
}

impl GatheredPages {
    /// Takes pages with consecutive numbers from one group.
    ///
    /// # Errors
    /// When the file cannot be written; the pages are still read as written then.
    pub(crate) fn write(&self, file: &dyn File, first: u64, data: &[u8]) -> io::Result<()> {
        if data.len() >= DIRECT_BYTES {
            file.write_all_at(data, page_offset(first))?;
            let mut pages = self.pages.write();
            for (page, _) in (first..).zip(data.chunks(PAGE)) {
                pages.remove(&page);
            }
            return Ok(());
        }
        let mut pages = self.pages.write();
        for (page, content) in (first..).zip(data.chunks(PAGE)) {
            pages.insert(page, content.into());
        }
        let full = pages.len() > PAGES_MAX;
        drop(pages);
        if full { self.write_out(file) } else { Ok(()) }
    }

    /// Writes all pages to the file; only a sync makes them durable.
    ///
    /// # Errors
    /// When the file cannot be written; the pages are still read as written then.
    pub(crate) fn write_out(&self, file: &dyn File) -> io::Result<()> {
        // Readers go on, and find each page here until it is in the file.
        let pages = self.pages.read();
        let mut runs: Vec<(u64, Vec<&[u8]>)> = Vec::new();
        let mut end = None;
        for (page, content) in &*pages {
            let offset = page_offset(*page);
            match runs.last_mut() {
                Some((_, run)) if end == Some(offset) && run.len() < RUN_PAGES => run.push(content),
                _ => runs.push((offset, vec![content])),
            }
            end = Some(offset + PAGE_BYTES);
        }
        for (offset, run) in runs {
            file.write_all_vectored_at(&run, offset)?;
        }
        drop(pages);
        self.pages.write().clear();
        Ok(())
    }

    /// Reads pages with consecutive numbers from one group, from here or from the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(&self, file: &dyn File, first: u64, out: &mut [u8]) -> io::Result<()> {
        let pages = self.pages.read();
        let last = first + (out.len() / PAGE) as u64;
        if pages.range(first..last).next().is_none() {
            // What was here before is in the file by now.
            drop(pages);
            return read_exact_at(file, out, page_offset(first));
        }
        for (page, out) in (first..).zip(out.chunks_mut(PAGE)) {
            match pages.get(&page) {
                Some(content) => out.copy_from_slice(content),
                None => read_exact_at(file, out, page_offset(page))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_disk::{Disk, Fault, OpenMode, OperationKind, SimDisk};
    use std::path::Path;

    fn file(disk: &SimDisk) -> Box<dyn File> {
        let file = disk.open(Path::new("/db"), OpenMode::CreateOrOpen).unwrap();
        file.set_len(page_offset(4000)).unwrap();
        file
    }

    fn page(content: u8) -> Vec<u8> {
        vec![content; PAGE]
    }

    #[test]
    fn neighbours_go_out_in_one_write() {
        let disk = SimDisk::new(1);
        let file = file(&disk);
        let gathered = GatheredPages::default();
        for number in [7, 3, 5, 4, 20, 6] {
            gathered.write(&*file, number, &page(1)).unwrap();
        }
        let before = disk.operations();
        gathered.write_out(&*file).unwrap();
        assert_eq!(disk.operations() - before, 2, "pages 3 to 7, and 20");
        gathered.write_out(&*file).unwrap();
        assert_eq!(disk.operations() - before, 2, "nothing is written twice");
    }

    #[test]
    fn what_was_written_last_is_read_before_and_after_it_goes_out() {
        let disk = SimDisk::new(1);
        let file = file(&disk);
        let gathered = GatheredPages::default();
        gathered
            .write(&*file, 1, &[page(1), page(2), page(3)].concat())
            .unwrap();
        gathered.write_out(&*file).unwrap();
        gathered.write(&*file, 2, &page(8)).unwrap();
        gathered.write(&*file, 2, &page(9)).unwrap();
        let read = || {
            let mut out = vec![0; 3 * PAGE];
            gathered.read(&*file, 1, &mut out).unwrap();
            [out[0], out[PAGE], out[2 * PAGE]]
        };
        assert_eq!(read(), [1, 9, 3]);
        gathered.write_out(&*file).unwrap();
        assert_eq!(read(), [1, 9, 3]);
    }

    #[test]
    fn a_large_write_takes_the_place_of_what_was_gathered() {
        let disk = SimDisk::new(1);
        let file = file(&disk);
        let gathered = GatheredPages::default();
        gathered.write(&*file, 5, &page(1)).unwrap();
        gathered.write(&*file, 1, &vec![2; DIRECT_BYTES]).unwrap();
        gathered.write_out(&*file).unwrap();
        let mut out = page(0);
        gathered.read(&*file, 5, &mut out).unwrap();
        assert_eq!(out, page(2));
    }

    #[test]
    fn memory_is_bounded() {
        let disk = SimDisk::new(1);
        let file = file(&disk);
        let gathered = GatheredPages::default();
        for number in 1..=3000 {
            gathered.write(&*file, number, &page(1)).unwrap();
            assert!(gathered.pages.read().len() <= PAGES_MAX);
        }
    }

    #[test]
    fn pages_that_cannot_be_written_are_still_read() {
        let disk = SimDisk::new(1);
        let file = file(&disk);
        let gathered = GatheredPages::default();
        gathered.write(&*file, 1, &page(1)).unwrap();
        disk.inject_next(OperationKind::Write, Fault::NoSpace);
        gathered.write_out(&*file).unwrap_err();
        let mut out = page(0);
        gathered.read(&*file, 1, &mut out).unwrap();
        assert_eq!(out, page(1));
    }
}
