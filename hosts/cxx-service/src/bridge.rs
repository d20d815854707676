//! The bridge: what C++ may call of Rust, and the one function of C++ that Rust calls.

use std::ffi::OsStr;

use easytransfer::{App, Error, Result, Runtime, RuntimeOptions};

#[cxx::bridge(namespace = "service")]
mod ffi {
    extern "Rust" {
        /// A trained bundle that answers requests.
        type Service;

        /// Loads a bundle.
        fn open(bundle: &str) -> Result<Box<Service>>;

        /// Answers one request: JSON in, JSON out.
        fn answer(self: &mut Service, request: &str) -> Result<String>;
    }

    // SAFETY: the function keeps to the signature that the bridge checks at build time.
    unsafe extern "C++" {
        include!("easytransfer-cxx-service/cpp/service.hpp");

        /// Reads requests from standard input until it ends; the result is the exit code.
        fn serve(service: &mut Service) -> i32;
    }
}

/// A trained bundle that answers requests.
pub struct Service {
    app: App,
}

fn open(bundle: &str) -> Result<Box<Service>> {
    let runtime = Runtime::new(RuntimeOptions::default())?;
    Ok(Box::new(Service { app: runtime.app(OsStr::new(bundle).as_ref())? }))
}

impl Service {
    fn answer(&mut self, request: &str) -> Result<String> {
        self.app.predict_json(request)
    }
}

/// Serves a bundle; the result is the exit code.
pub fn run(bundle: &str) -> std::result::Result<i32, Error> {
    Ok(ffi::serve(&mut *open(bundle)?))
}
