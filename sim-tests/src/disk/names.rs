//! Names: how a path leads to an inode.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::State;
use super::images::{Images, Inode, Names, Rename, Write};
use super::steps::Step;

/// The inode of `/`.
pub(super) const ROOT: u64 = 0;

impl State {
    /// Frees the room of inodes that no name leads to any more, not even one that a power loss might bring back, and that
    /// nobody has open.
    pub(super) fn forget_unreachable(&mut self) {
        let mut reached = std::collections::BTreeSet::new();
        let mut todo = vec![ROOT];
        todo.extend(self.open.keys());
        while let Some(inode) = todo.pop() {
            if reached.insert(inode)
                && let Some(Inode::Directory(directory)) = self.inodes.get(&inode)
            {
                todo.extend(directory.volatile.values().chain(directory.durable.values()));
                todo.extend(directory.unsynced.iter().filter_map(Rename::inode));
            }
        }
        self.inodes.retain(|inode, _| reached.contains(inode));
    }

    /// One of those who have this file open has it open no more.
    pub(super) fn close(&mut self, inode: u64) {
        let Some(count) = self.open.get_mut(&inode) else { return };
        *count -= 1;
        if *count == 0 {
            self.open.remove(&inode);
            self.forget_unreachable();
        }
    }

    pub(super) fn collect_durable(&self, inode: u64, path: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
        match &self.inodes[&inode] {
            Inode::File(file) => files.push((path.to_owned(), file.durable.clone())),
            Inode::Directory(directory) => {
                for (name, inode) in &directory.durable {
                    self.collect_durable(*inode, &path.join(name), files);
                }
            }
        }
    }

    /// The inode at `path`.
    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        let mut inode = ROOT;
        for name in names(path)? {
            let Inode::Directory(directory) = &self.inodes[&inode] else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            inode = *directory.volatile.get(name).ok_or_else(|| not_found(path))?;
        }
        Ok(inode)
    }

    /// The directory that holds `path`, and its name there.
    pub(super) fn find_place(&self, path: &Path) -> io::Result<(u64, String)> {
        let parent = path.parent().ok_or_else(|| io::Error::other("the root has no name"))?;
        let name = names(path)?.pop().ok_or_else(|| io::Error::other("the root has no name"))?;
        let parent = self.find(parent)?;
        match &self.inodes[&parent] {
            Inode::Directory(_) => Ok((parent, name.to_owned())),
            Inode::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn directory(&mut self, inode: u64) -> io::Result<&mut Images<Names, Rename>> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&mut self, inode: u64) -> io::Result<&mut Images<Vec<u8>, Write>> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn create(&mut self, parent: u64, name: String, inode: Inode) -> io::Result<u64> {
        self.approach(parent);
        self.step(Step::Create)?;
        let number = self.inode_next;
        self.inode_next += 1;
        self.inodes.insert(number, inode);
        self.directory(parent)?.change(Rename::Link { name, inode: number });
        Ok(number)
    }

    pub(super) fn remove_all(&mut self, parent: u64, name: String) -> io::Result<()> {
        let inode = self.directory(parent)?.volatile.get(&name).copied();
        // Each of its files is a step: a crash may come between them.
        if let Some(inode) = inode
            && let Some(Inode::Directory(directory)) = self.inodes.get(&inode)
        {
            for child in directory.volatile.keys().cloned().collect::<Vec<_>>() {
                self.remove_all(inode, child)?;
            }
        }
        self.step(Step::Remove)?;
        self.directory(parent)?.change(Rename::Unlink { name });
        Ok(())
    }
}

pub(super) fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                names.push(name.to_str().ok_or_else(|| io::Error::other("a name is not UTF-8"))?);
            }
            Component::Prefix(_) | Component::ParentDir => {
                return Err(io::Error::other(format!("{} is not a plain path", path.display())));
            }
        }
    }
    Ok(names)
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}
