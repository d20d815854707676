//! The C library as a face of the SDK: `libeasytransfer` opened from the staged build, called as a C program calls it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};

use easytransfer_plugin::abi::et_str;
use serde_json::{Value, json};

use crate::face::Face;
use crate::places;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

const RTLD_NOW: c_int = 2;

/// A handle of the library whose type does not matter here.
type Handle = *mut c_void;
type Error = *mut c_void;

/// The functions that the suite uses.
pub struct CFace {
    library: *mut c_void,
    runtime: Handle,
}

/// A function of the library by name, as a function pointer type.
macro_rules! function {
    ($self:expr, $name:literal as $ty:ty) => {{
        let name = CString::new($name).expect("no NUL");
        // SAFETY: the library is open, and the types are those of the header.
        unsafe {
            let found = dlsym($self.library, name.as_ptr());
            assert!(!found.is_null(), "libeasytransfer has no {}", $name);
            std::mem::transmute::<*mut c_void, $ty>(found)
        }
    }};
}

fn c(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|error| error.to_string())
}

fn path(path: &Path) -> Result<CString, String> {
    c(&path.to_string_lossy())
}

impl CFace {
    /// Opens the library and starts a runtime with the staged plugins.
    pub fn new() -> Self {
        let file = path(&places::staged().join("libeasytransfer.so")).expect("a path");
        // SAFETY: the path is NUL-terminated.
        let library = unsafe { dlopen(file.as_ptr(), RTLD_NOW) };
        assert!(!library.is_null(), "{file:?} does not open");
        let mut face = Self { library, runtime: null_mut() };
        let plugins = places::staged().join("plugins");
        let options = json!({ "plugins": [plugins.to_string_lossy()], "only_these": true });
        let options = c(&options.to_string()).expect("no NUL");
        let new = function!(
            face,
            "et_runtime_new" as unsafe extern "C" fn(*const c_char, *mut Handle) -> Error
        );
        // SAFETY: the options are text and the out is local.
        let error = unsafe { new(options.as_ptr(), &mut face.runtime) };
        face.check(error).expect("the runtime starts");
        face
    }

    fn check(&self, error: Error) -> Result<(), String> {
        if error.is_null() {
            return Ok(());
        }
        let message = function!(self, "et_error_message" as unsafe extern "C" fn(Error) -> et_str);
        let release = function!(self, "et_error_release" as unsafe extern "C" fn(Error));
        // SAFETY: the error is live and its message is copied before it is released.
        unsafe {
            let text = message(error);
            let bytes = std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len);
            let text = String::from_utf8_lossy(bytes).into_owned();
            release(error);
            Err(text)
        }
    }

    /// The content of an `et_text`, which is given back.
    fn take(&self, text: Handle) -> String {
        let data = function!(self, "et_text_data" as unsafe extern "C" fn(Handle) -> *const c_char);
        let release = function!(self, "et_text_release" as unsafe extern "C" fn(Handle));
        // SAFETY: the text is live and NUL-terminated, and copied before it is released.
        unsafe {
            let copy = CStr::from_ptr(data(text)).to_string_lossy().into_owned();
            release(text);
            copy
        }
    }
}

impl Default for CFace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for CFace {
    fn drop(&mut self) {
        let release = function!(self, "et_runtime_release" as unsafe extern "C" fn(Handle));
        // SAFETY: the runtime is live and not used again.
        unsafe { release(self.runtime) };
    }
}

impl Face for CFace {
    fn fit(
        &self,
        encoder: &Path,
        train: &Path,
        valid: &Path,
        output: &Path,
        config: &Value,
    ) -> Result<Value, String> {
        let options = json!({
            "app": "text-classify", "encoder": encoder, "train": train, "valid": valid, "output": output,
            "config": config, "from_scratch": true, "progress": "silent",
        });
        let options = c(&options.to_string())?;
        let fit = function!(
            self,
            "et_fit"
                as unsafe extern "C" fn(
                    Handle,
                    *const c_char,
                    *const c_void,
                    *mut c_void,
                    *mut Handle,
                ) -> Error
        );
        let mut out = null_mut();
        // SAFETY: the runtime is live, the options are text, no callback is given, and the out is local.
        self.check(unsafe { fit(self.runtime, options.as_ptr(), null(), null_mut(), &mut out) })?;
        serde_json::from_str(&self.take(out)).map_err(|error| error.to_string())
    }

    fn predict(&self, bundle: &Path, request: &str) -> Result<String, String> {
        let load = function!(
            self,
            "et_app_load" as unsafe extern "C" fn(Handle, *const c_char, *mut Handle) -> Error
        );
        let predict = function!(
            self,
            "et_app_predict_json"
                as unsafe extern "C" fn(Handle, *const c_char, *mut Handle) -> Error
        );
        let release = function!(self, "et_app_release" as unsafe extern "C" fn(Handle));
        let (bundle, request) = (path(bundle)?, c(request)?);
        let (mut app, mut out) = (null_mut(), null_mut());
        // SAFETY: the runtime is live, texts are NUL-terminated, outs are local, and the app is released once.
        unsafe {
            self.check(load(self.runtime, bundle.as_ptr(), &mut app))?;
            let answer = self.check(predict(app, request.as_ptr(), &mut out));
            release(app);
            answer?;
        }
        Ok(self.take(out))
    }

    fn embed(&self, encoder: &Path, texts: &[&str]) -> Result<Vec<f32>, String> {
        let load = function!(
            self,
            "et_embedder_load"
                as unsafe extern "C" fn(Handle, *const c_char, *const c_char, *mut Handle) -> Error
        );
        let width = function!(self, "et_embedder_width" as unsafe extern "C" fn(Handle) -> usize);
        let embed = function!(
            self,
            "et_embedder_embed"
                as unsafe extern "C" fn(
                    Handle,
                    *const *const c_char,
                    usize,
                    *mut f32,
                    usize,
                ) -> Error
        );
        let release = function!(self, "et_embedder_release" as unsafe extern "C" fn(Handle));
        let encoder = path(encoder)?;
        let texts: Vec<CString> = texts.iter().map(|text| c(text)).collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        let mut embedder = null_mut();
        // SAFETY: the runtime is live, texts are NUL-terminated, the buffer has the length that is said, and the
        // embedder is released once.
        unsafe {
            self.check(load(self.runtime, encoder.as_ptr(), null(), &mut embedder))?;
            let mut vectors = vec![0f32; texts.len() * width(embedder)];
            let len = vectors.len();
            let result = self.check(embed(
                embedder,
                pointers.as_ptr(),
                pointers.len(),
                vectors.as_mut_ptr(),
                len,
            ));
            release(embedder);
            result.map(|()| vectors)
        }
    }

    fn plugins(&self) -> Vec<String> {
        let list = function!(
            self,
            "et_runtime_plugins_json" as unsafe extern "C" fn(Handle, *mut Handle) -> Error
        );
        let mut out = null_mut();
        // SAFETY: the runtime is live and the out is local.
        if self.check(unsafe { list(self.runtime, &mut out) }).is_err() {
            return Vec::new();
        }
        let plugins: Vec<Value> = serde_json::from_str(&self.take(out)).unwrap_or_default();
        plugins.iter().filter_map(|p| p["id"].as_str().map(str::to_owned)).collect()
    }
}
