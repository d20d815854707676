//! Files and directories that are whole or not there: written beside under a temporary name, flushed to the disk, then
//! renamed. A killed process leaves at most a temporary (`NAME.tmp-<process>-<n>`), which the next writer of that name
//! removes; one that is interrupted calls [`abandon`] and leaves nothing.
//!
//! A file that is replaced keeps its mode, and its owner where the system allows that. Links are followed, so it is
//! the file behind them that is replaced. Devices, pipes and open files such as `/dev/stdout` are written to as they
//! are.
//!
//! A directory that replaces another needs two renames, the old one to `NAME.old-<process>-<n>` and the new one to
//! `NAME`; whoever was killed between them left no `NAME`, and [`recover`] puts the old one back.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::files::destination::{self, Destination, parent};
use crate::files::pending;
pub use crate::files::pending::abandon;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Creates or replaces the file at `path` with what `write` writes. On any error the old file, if there was one, is as
/// before and nothing new remains.
pub fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    write(&mut file)?;
    file.commit()
}

/// A file that appears under its name when it is committed. Dropped without that, it leaves nothing. Into a device or
/// a pipe it writes at once.
pub struct AtomicFile {
    target: PathBuf,
    /// Where the file will be and where it is until then; none for a device or a pipe.
    places: Option<(PathBuf, PathBuf)>,
    file: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Starts the file that will be `target`, and removes leftovers of dead writers. Errors: `target` is a directory
    /// or may not be written to; its directory is missing.
    pub fn create(target: &Path) -> Result<AtomicFile> {
        let failed = |error| Error::io("create", target, error);
        let (path, old) = match destination::find(target).map_err(failed)? {
            Destination::File(path, old) => (path, old),
            Destination::Stream(file) => {
                return Ok(AtomicFile::new(target, None, file));
            }
        };
        remove_leftovers(&path);
        let temporary = reserve(&path)?;
        match create_like(&temporary, old.as_ref()) {
            Ok(file) => Ok(AtomicFile::new(target, Some((path, temporary)), file)),
            Err(error) => {
                let _ = fs::remove_file(&temporary);
                pending::remove(&temporary);
                let text = format!(
                    "{error}; it is written under a temporary name, so its folder `{}` must be writable",
                    parent(&path).display()
                );
                Err(failed(std::io::Error::new(error.kind(), text)))
            }
        }
    }

    fn new(target: &Path, places: Option<(PathBuf, PathBuf)>, file: File) -> AtomicFile {
        let file = Some(BufWriter::with_capacity(1 << 18, file));
        AtomicFile { target: target.to_path_buf(), places, file }
    }

    /// Whether it can be written to at any place, as a format needs whose beginning is known at the end only: a pipe
    /// cannot.
    pub fn can_seek(&mut self) -> bool {
        self.places.is_some() || matches!(self.stream_position(), Ok(0))
    }

    /// Flushes to the disk and renames.
    pub fn commit(mut self) -> Result<()> {
        // Present until here: only this method and drop take it.
        let Some(writer) = self.file.take() else { return Ok(()) };
        let io = |error| Error::io("write", &self.target, error);
        let file = writer.into_inner().map_err(|error| io(error.into_error()))?;
        let Some((path, temporary)) = &self.places else { return Ok(()) };
        file.sync_all().map_err(io)?;
        drop(file);
        pending::undisturbed(|| fs::rename(temporary, path))
            .map_err(|error| Error::io("rename", &self.target, error))?;
        sync_directory(parent(path))
    }
}

/// A new file, readable and writable for the same users as the `old` one.
fn create_like(path: &Path, old: Option<&Metadata>) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    let Some(old) = old else { return options.open(path) };
    // Nobody else may look before it has the mode of the old one.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    make_like(&file, old)?;
    Ok(file)
}

/// Gives a file owner and mode of the one that it will replace.
fn make_like(file: &File, old: &Metadata) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        // Only root can give a file away; a group is possible for its members.
        if fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
            let _ = fchown(file, None, Some(old.gid()));
        }
    }
    file.set_permissions(old.permissions())
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.flush())
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.as_mut().map_or(Ok(0), |file| file.seek(to))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What is still in memory is not wanted any more, and writing it could wait for a reader.
            drop(file.into_parts());
        }
        if let Some((_, temporary)) = &self.places {
            // After a commit there is nothing of this name any more.
            let _ = fs::remove_file(temporary);
            pending::remove(temporary);
        }
    }
}

/// A directory that appears under its name when it is committed. Dropped without that, it leaves nothing.
#[derive(Debug)]
pub struct AtomicDir {
    target: PathBuf,
    temporary: PathBuf,
}

impl AtomicDir {
    /// Starts the directory that will be `target`, after [`recover`]ing that and removing leftovers of dead writers.
    /// Errors: `target` is a file; its parent cannot be created.
    pub fn create(target: &Path) -> Result<AtomicDir> {
        if target.exists() && !target.is_dir() {
            return Err(Error::io(
                "create",
                target,
                std::io::Error::new(
                    std::io::ErrorKind::AlreadyExists,
                    "a file of this name exists; name a directory",
                ),
            ));
        }
        fs::create_dir_all(parent(target)).map_err(|e| Error::io("create", parent(target), e))?;
        recover(target)?;
        remove_leftovers(target);
        let temporary = reserve(target)?;
        if let Err(error) = fs::create_dir(&temporary) {
            pending::remove(&temporary);
            return Err(Error::io("create", &temporary, error));
        }
        Ok(AtomicDir { target: target.to_path_buf(), temporary })
    }

    /// Where to write the directory's files until it is committed.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Flushes every file to the disk and puts the directory in the place of an older one, which is removed.
    pub fn commit(self) -> Result<()> {
        sync_tree(&self.temporary)?;
        let directory = parent(&self.target);
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|error| Error::io("rename", from, error))
        };
        let old = with_suffix(&self.target, &suffix("old"))?;
        let replaced = pending::undisturbed(|| {
            if !self.target.exists() {
                return rename(&self.temporary, &self.target).map(|()| false);
            }
            rename(&self.target, &old)?;
            if let Err(error) = rename(&self.temporary, &self.target) {
                // The first error says more than one of going back.
                let _ = fs::rename(&old, &self.target);
                return Err(error);
            }
            Ok(true)
        })?;
        if replaced {
            sync_directory(directory)?;
            // The new one is in place; what cannot be removed now is a leftover for the next writer.
            let _ = fs::remove_dir_all(&old);
        }
        sync_directory(directory)
    }
}

impl AtomicDir {
    /// Flushes every file to the disk and moves them into the directory `into`, `last` after all others, in the place
    /// of older ones of their names, once those of `gone` were removed there, too. Errors: the system refuses.
    pub fn merge(self, into: &Path, last: &str, gone: &[PathBuf]) -> Result<()> {
        sync_tree(&self.temporary)?;
        let entries = fs::read_dir(&self.temporary)
            .map_err(|error| Error::io("read", &self.temporary, error))?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(
                entry.map_err(|error| Error::io("read", &self.temporary, error))?.file_name(),
            );
        }
        names.sort_by_key(|name| name == last);
        for name in &names {
            let old = fs::symlink_metadata(into.join(name)).ok().filter(Metadata::is_file);
            if let Some(old) = old {
                let path = self.temporary.join(name);
                File::open(&path)
                    .and_then(|file| make_like(&file, &old))
                    .map_err(|error| Error::io("set the mode of", path, error))?;
            }
        }
        pending::undisturbed(|| {
            for path in gone {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", path, error));
                    }
                    _ => {}
                }
            }
            for name in &names {
                let path = into.join(name);
                fs::rename(self.temporary.join(name), &path)
                    .map_err(|error| Error::io("rename", path, error))?;
            }
            Ok(())
        })?;
        sync_directory(into)
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.temporary);
        pending::remove(&self.temporary);
    }
}

/// Puts back the old directory of a writer that was killed between its two renames; whether it did. Call it before
/// reading a directory that [`AtomicDir`] writes.
pub fn recover(target: &Path) -> Result<bool> {
    if target.exists() {
        return Ok(false);
    }
    let mut old: Vec<(u32, PathBuf)> = siblings(target, ".old-");
    // A living process is about to finish the second rename itself.
    old.retain(|(process, path)| is_dead(*process, path));
    match old.pop() {
        Some((_, path)) => {
            fs::rename(&path, target).map_err(|error| Error::io("rename", path, error))?;
            Ok(true)
        }
        None => Ok(false),
    }
}

/// Removes temporaries and replaced directories of `target` whose writers are gone.
fn remove_leftovers(target: &Path) {
    let mut leftovers = siblings(target, ".tmp-");
    if target.exists() {
        leftovers.extend(siblings(target, ".old-"));
    }
    for (process, path) in leftovers {
        if is_dead(process, &path) {
            // A leftover that resists is harmless.
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

/// The entries beside `target` named like it with `mark`, a process number, a dash and a count; sorted by name.
fn siblings(target: &Path, mark: &str) -> Vec<(u32, PathBuf)> {
    let Some(name) = target.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let start = format!("{name}{mark}");
    let mut found = Vec::new();
    for entry in fs::read_dir(parent(target)).into_iter().flatten().flatten() {
        let entry_name = entry.file_name();
        let Some(rest) = entry_name.to_str().and_then(|name| name.strip_prefix(&start)) else {
            continue;
        };
        let Some((process, count)) = rest.split_once('-') else { continue };
        if let (Ok(process), Ok(_)) = (process.parse(), count.parse::<u64>()) {
            found.push((process, entry.path()));
        }
    }
    found.sort();
    found
}

fn is_dead(process: u32, path: &Path) -> bool {
    if process == std::process::id() {
        return !pending::contains(path);
    }
    if Path::new("/proc/self").exists() {
        return !Path::new(&format!("/proc/{process}")).exists();
    }
    // Without a process list, what nobody has touched for a day is dead.
    let touched = fs::metadata(path).and_then(|about| about.modified()).ok();
    touched.and_then(|time| time.elapsed().ok()).is_some_and(|age| age.as_secs() > 86_400)
}

fn suffix(kind: &str) -> String {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!(".{kind}-{}-{count}", std::process::id())
}

fn reserve(target: &Path) -> Result<PathBuf> {
    let path = with_suffix(target, &suffix("tmp"))?;
    pending::add(&path);
    Ok(path)
}

fn with_suffix(target: &Path, suffix: &str) -> Result<PathBuf> {
    let Some(name) = target.file_name() else {
        return Err(Error::user(format!(
            "`{}`: expected a path that ends in a name",
            target.display()
        )));
    };
    let mut name = name.to_os_string();
    name.push(suffix);
    Ok(parent(target).join(name))
}

fn sync_tree(directory: &Path) -> Result<()> {
    let entries = fs::read_dir(directory).map_err(|error| Error::io("read", directory, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("read", directory, error))?;
        let kind = entry.file_type().map_err(|error| Error::io("read", entry.path(), error))?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            let path = entry.path();
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|error| Error::io("flush", path, error))?;
        }
    }
    sync_directory(directory)
}

/// Flushes a directory's entries; only Unix can.
fn sync_directory(directory: &Path) -> Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let synced = File::open(directory).and_then(|file| file.sync_all());
    synced.map_err(|error| Error::io("flush", directory, error))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory for one test, removed at its end.
    pub(crate) struct Scratch(PathBuf);

    impl Scratch {
        pub(crate) fn new(name: &str) -> Scratch {
            let name = format!("easytransfer-{name}-{}", suffix("test"));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// The number of a process that is certainly gone; larger than any that Linux gives.
    const DEAD: u32 = 4_194_305;

    #[test]
    fn failed_write_keeps_the_old_file() {
        let scratch = Scratch::new("file");
        let path = scratch.path().join("a.json");
        let write = |text: &'static str| {
            write_file(&path, move |out| {
                out.write_all(text.as_bytes()).map_err(|error| Error::io("write", "a", error))
            })
        };
        write("one").unwrap();
        let failed = write_file(&path, |out| {
            out.write_all(b"half").unwrap();
            Err(Error::Cancelled)
        });
        assert!(matches!(failed, Err(Error::Cancelled)));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write("two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(scratch.names(), ["a.json"]);
    }

    #[test]
    fn directory_replaces_the_old_one_whole() {
        let scratch = Scratch::new("dir");
        let target = scratch.path().join("run");
        let first = AtomicDir::create(&target).unwrap();
        fs::write(first.path().join("old"), "1").unwrap();
        fs::create_dir(first.path().join("sub")).unwrap();
        assert!(!target.exists());
        first.commit().unwrap();
        let second = AtomicDir::create(&target).unwrap();
        fs::write(second.path().join("new"), "2").unwrap();
        drop(AtomicDir::create(&target).unwrap());
        assert!(second.path().exists(), "a writer at work was taken for a leftover");
        second.commit().unwrap();
        assert!(target.join("new").exists() && !target.join("old").exists());
        assert_eq!(scratch.names(), ["run"]);
    }

    #[test]
    fn leftovers_of_dead_writers_go_and_others_stay() {
        let scratch = Scratch::new("left");
        let target = scratch.path().join("run");
        let own = format!("run.tmp-{}-999999", std::process::id());
        for name in [&format!("run.tmp-{DEAD}-0"), &own, "run.tmp-note", "run2.tmp-1-1"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
        }
        drop(AtomicDir::create(&target).unwrap());
        assert_eq!(scratch.names(), ["run.tmp-note", "run2.tmp-1-1"]);
    }

    #[test]
    fn kill_between_renames_is_recovered() {
        let scratch = Scratch::new("recover");
        let target = scratch.path().join("run");
        let old = scratch.path().join(format!("run.old-{DEAD}-3"));
        fs::create_dir(&old).unwrap();
        fs::write(old.join("a"), "1").unwrap();
        assert!(recover(&target).unwrap());
        assert!(target.join("a").exists());
        assert!(!recover(&target).unwrap());
    }

    #[test]
    fn wrong_kind_of_target_is_refused() {
        let scratch = Scratch::new("kind");
        let error = AtomicFile::create(scratch.path()).err().unwrap();
        let said = format!("{error:#}");
        assert!(error.is_user_error() && said.contains("directory"), "{said}");
        let file = scratch.path().join("f");
        fs::write(&file, "x").unwrap();
        let error = AtomicDir::create(&file).unwrap_err();
        assert!(error.is_user_error() && format!("{error:#}").contains("a file of this name"));
        let error = AtomicFile::create(&scratch.path().join("no/f")).err().unwrap();
        assert!(error.is_user_error(), "{error}");
    }
}
