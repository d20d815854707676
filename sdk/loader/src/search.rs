//! Where manifests are looked for, and what is found there.

use crate::error::{Facts, LoadError};
use crate::kind::ComponentKind;
use crate::manifest::{LARGEST, PluginManifest, stem};
use crate::platform::{KNOWN_PLATFORMS, current_platform};
use crate::policy::Policy;
use crate::regular::open_regular;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The name of the environment variable with further places, separated by ':' (';' on Windows).
const PLUGIN_PATH: &str = "ET_PLUGIN_PATH";

/// Why a place is searched, in the order of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ManifestSource {
    /// The caller named it.
    Explicit,
    /// It is in `ET_PLUGIN_PATH`.
    Environment,
    /// `plugins/` or `../lib/easytransfer/plugins` beside the executable.
    Executable,
    /// `easytransfer/plugins`, `../lib/easytransfer/plugins` or `plugins/` beside the shared library of this code.
    Library,
    /// The user's data folder.
    User,
    /// The system's folder.
    System,
}

impl fmt::Display for ManifestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ManifestSource::Explicit => "explicit path",
            ManifestSource::Environment => PLUGIN_PATH,
            ManifestSource::Executable => "beside the executable",
            ManifestSource::Library => "beside the library",
            ManifestSource::User => "user data folder",
            ManifestSource::System => "system folder",
        })
    }
}

/// An ordered list of places. A place is a manifest, the folder of one plugin, or a folder with manifests or plugin
/// folders in it. The current folder is never a place unless the caller or `ET_PLUGIN_PATH` names it.
#[derive(Clone, Debug, Default)]
pub struct SearchPath {
    places: Vec<(ManifestSource, PathBuf)>,
}

impl SearchPath {
    /// `explicit`, then `ET_PLUGIN_PATH`, `plugins/` and `../lib/easytransfer/plugins` beside the executable, those of
    /// the installation that the loaded `libeasytransfer` belongs to, `easytransfer/plugins` in `$XDG_DATA_HOME` (or
    /// `~/.local/share`), and `/usr/lib/easytransfer/plugins`.
    pub fn standard(explicit: &[PathBuf]) -> SearchPath {
        let environment = std::env::var_os(PLUGIN_PATH);
        let executable = std::env::current_exe().ok();
        let home = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let data = home("XDG_DATA_HOME").or_else(|| home("HOME").map(|h| h.join(".local/share")));
        SearchPath::from_parts(
            explicit,
            environment.as_deref(),
            executable.as_deref().and_then(Path::parent),
            crate::image::library_folder(),
            data.as_deref(),
        )
    }

    /// Nothing but these places.
    pub fn only(places: &[PathBuf]) -> SearchPath {
        SearchPath {
            places: places.iter().map(|place| (ManifestSource::Explicit, place.clone())).collect(),
        }
    }

    /// The standard order from given parts: the value of `ET_PLUGIN_PATH`, the executable's folder, the folder of the
    /// shared library that this code is in (none where it is linked into the program), the user's data folder.
    pub fn from_parts(
        explicit: &[PathBuf],
        environment: Option<&OsStr>,
        executable_dir: Option<&Path>,
        library_dir: Option<&Path>,
        data_dir: Option<&Path>,
    ) -> SearchPath {
        let mut search = SearchPath::only(explicit);
        // An empty entry would mean the current folder to a shell; here it means nothing.
        let entries = environment.into_iter().flat_map(std::env::split_paths);
        let entries = entries.filter(|entry| !entry.as_os_str().is_empty());
        search.places.extend(entries.map(|entry| (ManifestSource::Environment, entry)));
        if let Some(dir) = executable_dir {
            search.places.push((ManifestSource::Executable, dir.join("plugins")));
            search
                .places
                .push((ManifestSource::Executable, dir.join("../lib/easytransfer/plugins")));
        }
        if let Some(dir) = library_dir {
            let beside = beside_library(dir).map(|folder| folder.join("easytransfer/plugins"));
            let build_tree = [dir.join("plugins")];
            let places = beside.chain(build_tree).map(|place| (ManifestSource::Library, place));
            search.places.extend(places);
        }
        if let Some(dir) = data_dir {
            search.places.push((ManifestSource::User, dir.join("easytransfer/plugins")));
        }
        if cfg!(unix) {
            search
                .places
                .push((ManifestSource::System, PathBuf::from("/usr/lib/easytransfer/plugins")));
        }
        search
    }

    /// The places in order.
    pub fn places(&self) -> impl Iterator<Item = (ManifestSource, &Path)> {
        self.places.iter().map(|(source, path)| (*source, path.as_path()))
    }

    /// Reads the manifests of all places, in order; the first of an id that can be used here wins. Opens no library.
    pub(crate) fn list(&self, policy: Policy) -> Vec<Listing> {
        let mut listings = Vec::new();
        let mut first: HashMap<String, PathBuf> = HashMap::new();
        let mut seen = Vec::new();
        for (source, place) in self.places() {
            let optional = source > ManifestSource::Environment;
            if optional && !place.is_dir() {
                continue;
            }
            let paths = match manifests_at(place) {
                Ok(paths) => paths,
                Err(problem) => {
                    listings.push(Listing::broken(source, place, problem));
                    continue;
                }
            };
            for path in paths {
                // The same file by two ways is not a duplicate.
                let canonical = path.canonicalize().unwrap_or_else(|_| path.clone());
                if seen.contains(&canonical) {
                    continue;
                }
                seen.push(canonical);
                listings.push(Listing::read(source, &path, policy, &mut first));
            }
        }
        listings
    }
}

/// Where the folder `easytransfer` of an installation is whose shared library lies in `dir`: beside the library, and
/// in `lib` where the library is in `lib64` or the like.
pub(crate) fn beside_library(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let lib = (!dir.ends_with("lib")).then(|| dir.join("../lib"));
    std::iter::once(dir.to_path_buf()).chain(lib)
}

/// One manifest that was found.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Id of the plugin; the file's name when the manifest cannot be read.
    pub id: String,
    /// The manifest.
    pub path: PathBuf,
    /// Why the place was searched.
    pub source: ManifestSource,
    /// Its content, unless it cannot be read.
    pub manifest: Option<PluginManifest>,
    /// Why it cannot be loaded as it stands: malformed, a duplicate of an earlier one, not for this platform.
    pub problem: Option<LoadError>,
}

impl Listing {
    /// A listing for one manifest outside any search.
    pub(crate) fn single(path: &Path, policy: Policy) -> Listing {
        Listing::read(ManifestSource::Explicit, path, policy, &mut HashMap::new())
    }

    /// Whether its manifest promises a component.
    pub(crate) fn offers(&self, kind: ComponentKind, name: &str) -> bool {
        let promised = self.manifest.iter().flat_map(|manifest| &manifest.provides);
        promised.into_iter().any(|provided| provided.kind == kind && provided.name == name)
    }

    /// Whether nothing is known that speaks against loading it, but that another one of its id comes earlier.
    pub(crate) fn may_be_used(&self) -> bool {
        matches!(self.problem, None | Some(LoadError::Duplicate(_)))
    }

    fn broken(source: ManifestSource, path: &Path, problem: LoadError) -> Listing {
        Listing {
            id: stem(path),
            path: path.to_path_buf(),
            source,
            manifest: None,
            problem: Some(problem),
        }
    }

    fn read(
        source: ManifestSource,
        path: &Path,
        policy: Policy,
        first: &mut HashMap<String, PathBuf>,
    ) -> Listing {
        let manifest = match PluginManifest::read(path) {
            Ok(manifest) => manifest,
            Err(problem) => return Listing::broken(source, path, problem),
        };
        // What cannot be used takes no id from one that can.
        let unusable = wrong_platform(&manifest)
            .or_else(|| policy.check_place(&manifest.id, path, "manifest").err());
        let problem = match first.get(&manifest.id) {
            _ if unusable.is_some() => unusable,
            Some(earlier) => Some(LoadError::Duplicate(Facts::boxed(
                &manifest.id,
                path,
                "another plugin with this id comes earlier in the search order",
                "one plugin per id",
                format!("{} is used", earlier.display()),
                "remove one of them, or name the wanted manifest explicitly",
            ))),
            None => {
                first.insert(manifest.id.clone(), path.to_path_buf());
                None
            }
        };
        Listing {
            id: manifest.id.clone(),
            path: path.to_path_buf(),
            source,
            manifest: Some(manifest),
            problem,
        }
    }
}

fn wrong_platform(manifest: &PluginManifest) -> Option<LoadError> {
    let platform = current_platform();
    if manifest.library.contains_key(platform) {
        return None;
    }
    let offered: Vec<&str> = manifest.library.keys().map(String::as_str).collect();
    let remedy = if KNOWN_PLATFORMS.contains(&platform) {
        format!("install a build of the plugin for {platform}")
    } else {
        format!("use one of the platforms {}", KNOWN_PLATFORMS.join(", "))
    };
    Some(LoadError::Platform(Facts::boxed(
        &manifest.id,
        &manifest.path,
        "the plugin has no library for this platform",
        format!("`{platform}` under [library]"),
        offered.join(", "),
        remedy,
    )))
}

/// The manifests at a place: the file itself; or the `.toml` files of a folder and of its subfolders, one level deep,
/// that mention `manifest_version` (other TOML files are not manifests). Sorted by path. Errors: `Path`.
pub(crate) fn manifests_at(place: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let unreadable = |found: String| {
        LoadError::Path(Facts::boxed(
            stem(place),
            place,
            "cannot search this place for plugins",
            "a manifest (.toml) or a folder",
            found,
            format!("check the path (given explicitly or in {PLUGIN_PATH})"),
        ))
    };
    let metadata = place.metadata().map_err(|error| unreadable(error.to_string()))?;
    if metadata.is_file() {
        if place.extension() == Some(OsStr::new("toml")) {
            return Ok(vec![place.to_path_buf()]);
        }
        return Err(LoadError::Path(Facts::boxed(
            stem(place),
            place,
            "this file is not a manifest",
            "a manifest (.toml) or a folder",
            "another kind of file",
            "name the manifest beside the library; a library alone cannot be loaded",
        )));
    }
    let mut found = Vec::new();
    let mut folders = vec![place.to_path_buf()];
    let mut top = true;
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder);
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) if top => return Err(unreadable(error.to_string())),
            // A subfolder that may not be read holds no plugin for this user.
            Err(_) => continue,
        };
        for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            if path.is_dir() {
                if top {
                    folders.push(path);
                }
            } else if path.extension() == Some(OsStr::new("toml")) && is_manifest(&path) {
                found.push(path);
            }
        }
        top = false;
    }
    found.sort();
    Ok(found)
}

/// Whether the file mentions `manifest_version`. What cannot be looked into, such as a pipe of that name, counts as
/// one: reading it then says in the list of plugins what is wrong.
fn is_manifest(path: &Path) -> bool {
    let marker = b"manifest_version";
    let mut text = Vec::new();
    let start = open_regular(path).and_then(|file| file.take(LARGEST).read_to_end(&mut text));
    start.is_err() || text.windows(marker.len()).any(|word| word == marker)
}
