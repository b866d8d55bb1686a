//! The directories of the simulated disk: names that are seen, names that are durable, and what lies between.

use super::file::Content;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path};

/// Number of a file or directory, never used twice.
pub(super) type NodeId = u64;

const ROOT: NodeId = 0;

/// A file or a directory, whatever its names.
#[derive(Debug, Clone)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Debug, Clone, Default)]
pub(super) struct FileNode {
    pub(super) content: Content,
    /// The handle that holds the lock.
    pub(super) locked_by: Option<u64>,
    /// Open handles.
    pub(super) handles: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct DirNode {
    seen: BTreeMap<OsString, NodeId>,
    durable: BTreeMap<OsString, NodeId>,
}

/// One change of one name in a directory: the new node, or none.
#[derive(Debug, Clone)]
struct NameChange {
    dir: NodeId,
    name: OsString,
    to: Option<NodeId>,
}

/// Changes of names that happen together, such as both ends of a rename.
#[derive(Debug, Clone)]
struct DirChange(Vec<NameChange>);

/// The whole tree.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
    /// Changes not yet durable, oldest first.
    pending: Vec<DirChange>,
}

impl Tree {
    pub(super) fn new() -> Tree {
        let root = Node::Dir(DirNode::default());
        Tree {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            pending: Vec::new(),
        }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut at = ROOT;
        for name in names_of(path)? {
            let dir = self.dir(at)?;
            at = dir.seen.get(name).copied().ok_or_else(|| not_found(path))?;
        }
        Ok(at)
    }

    /// Returns the directory that holds the last name of the path, and that name.
    fn find_parent<'a>(&self, path: &'a Path) -> io::Result<(NodeId, &'a OsStr)> {
        let mut names = names_of(path)?;
        let last = names
            .pop()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the root has no name"))?;
        let mut at = ROOT;
        for name in names {
            let next = self.dir(at)?.seen.get(name).copied();
            at = next.ok_or_else(|| not_found(path))?;
        }
        self.dir(at)?;
        Ok((at, last))
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.find(path).is_ok()
    }

    pub(super) fn file(&self, id: NodeId) -> io::Result<&FileNode> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn file_mut(&mut self, id: NodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn dir(&self, id: NodeId) -> io::Result<&DirNode> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.dir(self.find(path)?)?.seen.keys().cloned().collect())
    }

    /// Makes an empty file; nothing may have the name.
    pub(super) fn create_file(&mut self, path: &Path, content: Content) -> io::Result<NodeId> {
        let (dir, name) = self.find_parent(path)?;
        if self.dir(dir)?.seen.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.add(Node::File(FileNode {
            content,
            ..FileNode::default()
        }));
        self.change(vec![change(dir, name, Some(id))]);
        Ok(id)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names_of(path)? {
            at = match self.dir(at)?.seen.get(name) {
                Some(next) => *next,
                None => {
                    let id = self.add(Node::Dir(DirNode::default()));
                    self.change(vec![change(at, name, Some(id))]);
                    id
                }
            };
        }
        self.dir(at).map(|_| ())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.find_parent(from)?;
        let (to_dir, to_name) = self.find_parent(to)?;
        let id = self.dir(from_dir)?.seen.get(from_name).copied();
        let id = id.ok_or_else(|| not_found(from))?;
        let target = self.dir(to_dir)?.seen.get(to_name).copied();
        if target == Some(id) {
            return Ok(());
        }
        if let Some(target) = target {
            self.check_replaceable(id, target)?;
        }
        self.change(vec![
            change(from_dir, from_name, None),
            change(to_dir, to_name, Some(id)),
        ]);
        Ok(())
    }

    fn check_replaceable(&self, id: NodeId, target: NodeId) -> io::Result<()> {
        match (self.dir(id).is_ok(), self.dir(target)) {
            (false, Ok(_)) => Err(io::ErrorKind::IsADirectory.into()),
            (true, Err(_)) => Err(io::ErrorKind::NotADirectory.into()),
            (true, Ok(dir)) if !dir.seen.is_empty() => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.find_parent(path)?;
        let id = self.dir(dir)?.seen.get(name).copied();
        self.file(id.ok_or_else(|| not_found(path))?)?;
        self.change(vec![change(dir, name, None)]);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find(path)?;
        self.dir(id)?;
        let (done, pending) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| change.0.iter().any(|name| name.dir == id));
        self.pending = pending;
        let done: Vec<DirChange> = done;
        for change in &done {
            self.make_durable(change);
        }
        self.forget_unreachable();
        Ok(())
    }

    /// Returns how many changes of names are not durable.
    pub(super) fn pending_changes(&self) -> usize {
        self.pending.len()
    }

    /// Returns the last name that a pending change sets or removes.
    pub(super) fn pending_name(&self, position: usize) -> OsString {
        let change = self.pending.get(position);
        let name = change.and_then(|change| change.0.last());
        name.map(|name| name.name.clone()).unwrap_or_default()
    }

    /// Returns the files, by number.
    pub(super) fn files(&self) -> impl Iterator<Item = (NodeId, &FileNode)> {
        self.nodes.iter().filter_map(|(id, node)| match node {
            Node::File(file) => Some((*id, file)),
            Node::Dir(_) => None,
        })
    }

    /// Returns the tree as it is when nobody has a file open any more: all is seen as before, and as durable.
    pub(super) fn closed(&self) -> Tree {
        let mut tree = self.clone();
        for node in tree.nodes.values_mut() {
            if let Node::File(file) = node {
                (file.locked_by, file.handles) = (None, 0);
            }
        }
        tree.forget_unreachable();
        tree
    }

    /// Returns the tree that a power loss leaves: of the pending changes those that `keep` names, and files as `content` says.
    pub(super) fn after_power_loss(
        &self,
        mut keep: impl FnMut(usize) -> bool,
        mut content: impl FnMut(NodeId, &Content) -> Vec<u8>,
    ) -> Tree {
        let mut tree = Tree {
            nodes: BTreeMap::new(),
            next: self.next,
            pending: Vec::new(),
        };
        for (id, node) in &self.nodes {
            let node = match node {
                Node::Dir(dir) => Node::Dir(dir.clone()),
                Node::File(file) => Node::File(FileNode {
                    content: Content::durable(content(*id, &file.content))
                        .with_unreadable_of(&file.content),
                    ..FileNode::default()
                }),
            };
            tree.nodes.insert(*id, node);
        }
        for (position, change) in self.pending.iter().enumerate() {
            if keep(position) {
                tree.make_durable(change);
            }
        }
        for node in tree.nodes.values_mut() {
            if let Node::Dir(dir) = node {
                dir.seen = dir.durable.clone();
            }
        }
        tree.forget_unreachable();
        tree
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        id
    }

    fn change(&mut self, names: Vec<NameChange>) {
        for name in &names {
            if let Some(Node::Dir(dir)) = self.nodes.get_mut(&name.dir) {
                set(&mut dir.seen, name);
            }
        }
        self.pending.push(DirChange(names));
    }

    fn make_durable(&mut self, change: &DirChange) {
        for name in &change.0 {
            if let Some(Node::Dir(dir)) = self.nodes.get_mut(&name.dir) {
                set(&mut dir.durable, name);
            }
        }
    }

    /// Drops nodes that no name, seen, durable or pending, and no handle leads to.
    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        let pending = self.pending.iter().flat_map(|change| &change.0);
        open.extend(pending.filter_map(|name| name.to));
        while let Some(id) = open.pop() {
            reached.insert(id);
            if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
                let names = dir.seen.values().chain(dir.durable.values());
                open.extend(names.filter(|id| !reached.contains(id)));
            }
        }
        self.nodes.retain(|id, node| {
            reached.contains(id) || matches!(node, Node::File(file) if file.handles > 0)
        });
    }
}

fn set(names: &mut BTreeMap<OsString, NodeId>, change: &NameChange) {
    match change.to {
        Some(id) => {
            names.insert(change.name.clone(), id);
        }
        None => {
            names.remove(&change.name);
        }
    }
}

fn change(dir: NodeId, name: &OsStr, to: Option<NodeId>) -> NameChange {
    NameChange {
        dir,
        name: name.to_owned(),
        to,
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} does not exist", path.display()),
    )
}

/// Splits a path into names; relative paths start at the root.
fn names_of(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir => {}
            Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}
