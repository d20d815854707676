//! What the process has loaded: apps of one bundle, and embedders of one encoder, share parameters and packed copies.
//!
//! A second load gets what is there if it would read the same: the same directory, files that nobody has touched since
//! (by length, times and number of the file), the same options, the same plugins. Nothing is kept alive for it. A
//! network whose parameters the program may have changed is not handed out again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use easytransfer_plugin::ComponentRef;
use easytransfer_train::Result;
use easytransfer_train::model::components::Components;
use easytransfer_train::model::network::Network;

use crate::lanes::Lanes;

/// Times of files come in steps of some milliseconds, so a file that was written to just now may be written to again
/// without another time.
const TOO_FRESH: Duration = Duration::from_millis(50);
/// Endings of the files that a model is read from.
const ENDINGS: [&str; 6] = ["json", "txt", "safetensors", "bin", "model", "bpe"];
/// Folders of sentence-transformers lie one deep.
const DEPTH: usize = 2;

static LOADED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

struct Entry {
    source: Source,
    app: ComponentRef,
    model: ComponentRef,
    lanes: Weak<Lanes>,
}

/// What a load would read.
#[derive(PartialEq)]
struct Source {
    directory: PathBuf,
    /// What is made of it.
    made: String,
    files: Vec<(PathBuf, Stamp)>,
}

/// What changes when a file does.
#[derive(PartialEq)]
struct Stamp {
    len: u64,
    modified: SystemTime,
    /// On Unix: device, number, and time of the last change of either content or attributes.
    #[cfg(unix)]
    inode: [i128; 3],
}

impl Stamp {
    /// Nothing where the system does not say, or the file is too fresh to tell.
    fn of(path: &Path) -> Option<Stamp> {
        let data = std::fs::metadata(path).ok()?;
        let modified = data.modified().ok()?;
        let mut latest = modified;
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt;
            let (seconds, nanos) = (data.ctime(), data.ctime_nsec());
            let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
            latest = latest.max(SystemTime::UNIX_EPOCH + since);
            let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            [i128::from(data.dev()), i128::from(data.ino()), changed]
        };
        // A time in the future tells nothing either.
        let age = SystemTime::now().duration_since(latest).ok()?;
        let stamp = Stamp {
            len: data.len(),
            modified,
            #[cfg(unix)]
            inode,
        };
        (age >= TOO_FRESH).then_some(stamp)
    }
}

/// The stamps of a model's files in a directory and one below.
fn stamps(directory: &Path, depth: usize, all: &mut Vec<(PathBuf, Stamp)>) -> Option<()> {
    for entry in std::fs::read_dir(directory).ok()? {
        let path = entry.ok()?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if path.is_dir() {
            if depth > 1 {
                stamps(&path, depth - 1, all)?;
            }
        } else if ENDINGS.contains(&ending) {
            let stamp = Stamp::of(&path)?;
            all.push((path, stamp));
        }
    }
    Some(())
}

impl Source {
    fn of(directory: &Path, made: &str) -> Option<Source> {
        let directory = directory.canonicalize().ok()?;
        let mut files = Vec::new();
        stamps(&directory, DEPTH, &mut files)?;
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Some(Source { directory, made: made.to_owned(), files })
    }
}

fn loaded() -> MutexGuard<'static, Vec<Entry>> {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The components that a network was made by, as a registry knows them now.
fn components_of(all: &dyn Components, network: &Network) -> Result<(ComponentRef, ComponentRef)> {
    let app = all.find("et.app/1", &network.app_origin.name)?;
    Ok((app, all.find("et.model/1", &network.model_origin.name)?))
}

/// What is loaded of `source` with the plugins of `components`.
fn find(source: &Source, components: &dyn Components) -> Option<Arc<Lanes>> {
    let candidates: Vec<_> = {
        let mut all = loaded();
        all.retain(|entry| entry.lanes.strong_count() > 0);
        let of_source = all.iter().filter(|entry| entry.source == *source);
        let parts = |entry: &Entry| (entry.app.clone(), entry.model.clone(), entry.lanes.upgrade());
        of_source.map(parts).collect()
    };
    // A lookup may load a plugin, so it happens without the lock.
    candidates.into_iter().find_map(|(app, model, lanes)| {
        let lanes = lanes.filter(|lanes| !lanes.was_shown())?;
        let (own_app, own_model) = components_of(components, lanes.first()).ok()?;
        (own_app.is_same(&app) && own_model.is_same(&model)).then_some(lanes)
    })
}

/// The network of a directory that is there already, or the one that `load` gives. `made` says what is made of the
/// files. Errors: those of `load`.
pub(crate) fn load(
    components: &Arc<dyn Components>,
    directory: &Path,
    made: &str,
    load: impl FnOnce() -> Result<Network>,
) -> Result<Arc<Lanes>> {
    let source = Source::of(directory, made);
    if let Some(found) = source.as_ref().and_then(|source| find(source, &**components)) {
        return Ok(found);
    }
    let lanes = Arc::new(Lanes::new(load()?, components.clone()));
    // Files that changed while they were read belong to nobody else.
    let Some(source) = source.filter(|s| Source::of(directory, made).as_ref() == Some(s)) else {
        return Ok(lanes);
    };
    // Another thread may have been quicker.
    if let Some(found) = find(&source, &**components) {
        return Ok(found);
    }
    let (app, model) = components_of(&**components, lanes.first())?;
    loaded().push(Entry { source, app, model, lanes: Arc::downgrade(&lanes) });
    Ok(lanes)
}
