//! Builds a plugin of `plugins/` and its manifest in a folder of its own, and removes the folder afterwards.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The fields of a manifest as a test wants them. The default fits `plugins/good.c`.
#[derive(Clone, Debug)]
pub struct ManifestText {
    /// `id`, and the name of the file.
    pub id: &'static str,
    /// `version`.
    pub version: &'static str,
    /// `[abi] requires`.
    pub requires: &'static [&'static str],
    /// Names of the losses under `[[provides]]`.
    pub losses: &'static [&'static str],
    /// `[sha256]` of the library.
    pub sha256: Option<String>,
}

impl Default for ManifestText {
    fn default() -> ManifestText {
        ManifestText {
            id: "loss-under-test",
            version: "1.2.3",
            requires: &["et.log/1"],
            losses: &["under-test"],
            sha256: None,
        }
    }
}

/// A folder for one test.
pub struct Workshop {
    folder: PathBuf,
}

impl Workshop {
    /// An empty folder under `root`; `name` says for which test.
    ///
    /// # Panics
    /// If the folder cannot be made.
    pub fn new(root: &str, name: &str) -> Workshop {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let folder = Path::new(root).join(format!("{name}-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        Workshop { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Compiles `plugins/<source>` to `<file>` in the folder, with the compiler in CC or CXX (default cc and c++) and
    /// the header in ET_INCLUDE_DIR (default: the workspace's).
    ///
    /// # Panics
    /// If the compiler is missing or complains.
    pub fn compile(&self, source: &str, file: &str) -> PathBuf {
        self.compile_with(source, file, &[])
    }

    /// [`Workshop::compile`] with further arguments for the compiler.
    ///
    /// # Panics
    /// If the compiler is missing or complains.
    pub fn compile_with(&self, source: &str, file: &str, more: &[String]) -> PathBuf {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let include = std::env::var_os("ET_INCLUDE_DIR")
            .map_or_else(|| here.join("../../include"), PathBuf::from);
        let output = self.folder.join(file);
        let (variable, compiler, standard) = if source.ends_with(".cpp") {
            ("CXX", "c++", "-std=c++17")
        } else {
            ("CC", "cc", "-std=c99")
        };
        let compiler = std::env::var(variable).unwrap_or_else(|_| compiler.to_owned());
        let result = Command::new(&compiler)
            .args([standard, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I"])
            .arg(include)
            .args(more)
            // Lazy binding whatever the toolchain's default is: the loader must not depend on it.
            .args(if cfg!(target_os = "linux") { &["-Wl,-z,lazy"][..] } else { &[] })
            .arg(here.join("plugins").join(source))
            .arg("-o")
            .arg(&output)
            .output();
        let result = result.unwrap_or_else(|error| {
            panic!("cannot run the compiler {compiler:?} (set {variable}): {error}")
        });
        let messages = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.success(), "{source} does not compile:\n{messages}");
        output
    }

    /// Writes the manifest for a library in the folder, and returns its path.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn manifest(&self, text: &ManifestText, library: &str) -> PathBuf {
        let platform = easytransfer_loader::current_platform();
        let mut toml = format!(
            "manifest_version = 1\nid = {:?}\nversion = {:?}\n\n[abi]\nmajor = 0\nminor = 2\nrequires = {:?}\n",
            text.id, text.version, text.requires
        );
        for name in text.losses {
            write!(toml, "\n[[provides]]\nkind = \"loss\"\nname = {name:?}\n").expect("memory");
        }
        write!(toml, "\n[library]\n{platform} = {library:?}\n").expect("memory");
        if let Some(hash) = &text.sha256 {
            write!(toml, "\n[sha256]\n{platform} = {hash:?}\n").expect("memory");
        }
        let path = self.folder.join(format!("{}.toml", text.id));
        std::fs::write(&path, toml).expect("the manifest is written");
        path
    }

    /// Compiles a plugin and writes its manifest; returns the manifest's path.
    pub fn plugin(&self, source: &str, text: &ManifestText) -> PathBuf {
        let library = format!("{}.so", text.id);
        self.compile(source, &library);
        self.manifest(text, &library)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Nothing depends on it: the next run uses another folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
