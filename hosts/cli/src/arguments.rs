//! Arguments that several commands share.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use easytransfer::train::data::records::{Format, OnBadRow, ReadOptions, Schema};
use easytransfer::train::files::destination::is_same_file;
use easytransfer::train::files::output::OutputFormat;
use easytransfer::{
    DataSource, Device, EnginePrecision, Error, LayerPrecision, Named, PluginChoice, Policy,
    Profile, Result, Runtime, RuntimeOptions, engine_use,
};

use crate::{device, print};

/// Most threads of the engine.
const MOST_THREADS: usize = 1024;

/// Where plugins are and what computes.
#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// A manifest, the folder of a plugin, or a folder of plugins; searched before ET_PLUGIN_PATH. May be repeated
    #[arg(long, value_name = "DIR", global = true)]
    plugins: Vec<PathBuf>,
    /// Which code may run: any, pinned (libraries have the hash that their manifest states, if it states one) or
    /// hash-required; all but any refuse files that others could change [default: ET_TRUST, else pinned]
    #[arg(long, value_name = "POLICY", global = true)]
    trust: Option<String>,
    /// Which plugin is meant where several offer one name, and what stands for a plugin that a bundle was trained
    /// with: loss=my-losses/focal. May be repeated
    #[arg(long, value_name = "KIND=PLUGIN/NAME", global = true)]
    choose: Vec<PluginChoice>,
    /// What computes: cpu, cuda, cuda:N, or auto for a CUDA device where there is one [default: auto, without a note]
    #[arg(long, value_name = "DEVICE", global = true)]
    device: Option<String>,
    /// Threads of the engine [default: RAYON_NUM_THREADS, else one per processor]
    #[arg(long, value_name = "N", global = true, value_parser = clap::value_parser!(u32).range(1..=MOST_THREADS as i64))]
    threads: Option<u32>,
    /// Write a Chrome trace of all operations (chrome://tracing, Perfetto) and print the slowest ones
    #[arg(long, value_name = "FILE", global = true)]
    profile: Option<PathBuf>,
    #[arg(skip)]
    recording: Cell<Option<Profile>>,
    #[arg(skip)]
    compute: Cell<EnginePrecision>,
}

/// Precisions of training.
#[derive(Clone, Copy, ValueEnum)]
pub enum TrainPrecision {
    /// Single precision
    F32,
    /// Matrix products with 10 bits of mantissa; CUDA
    Tf32,
    /// Matrix products of layers in bfloat16, summed in f32; on CUDA also attention and what lies between operations
    Bf16,
    /// Half precision forward, bfloat16 backward; CUDA
    F16,
}

impl From<TrainPrecision> for EnginePrecision {
    fn from(precision: TrainPrecision) -> Self {
        match precision {
            TrainPrecision::F32 => Self::F32,
            TrainPrecision::Tf32 => Self::Tf32,
            TrainPrecision::Bf16 => Self::Bf16,
            TrainPrecision::F16 => Self::F16,
        }
    }
}

impl Common {
    /// Sets how the engine computes, before it starts.
    pub fn compute_in(&self, precision: TrainPrecision) {
        self.compute.set(precision.into());
    }

    /// Checks the device's name and sets the number of threads. Must be called before the engine starts and while no
    /// other thread computes.
    pub fn apply(&self) -> Result<()> {
        if let Some(threads) = self.threads {
            // SAFETY: of all threads only this one and the one that waits for signals are there yet, so nothing reads
            // the environment meanwhile.
            unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
        }
        self.chosen()?;
        let named =
            std::env::var("RAYON_NUM_THREADS").ok().and_then(|threads| threads.parse().ok());
        if let Some(threads) = named.filter(|&threads| threads > MOST_THREADS) {
            return Err(Error::user(format!(
                "RAYON_NUM_THREADS: expected at most {MOST_THREADS} threads, found {threads}"
            )));
        }
        // Every command computes on this thread.
        easytransfer::include_this_thread(named.filter(|&threads| threads > 0))
    }

    /// The device that was named.
    fn chosen(&self) -> Result<Device> {
        self.device.as_deref().map_or(Ok(Device::Auto), |name| {
            device::parse(name).map_err(|text| Error::user(format!("--device: {text}")))
        })
    }

    /// The policy that was named.
    pub fn policy(&self) -> Result<Policy> {
        let variable = "ET_TRUST";
        let (origin, name) = match (&self.trust, std::env::var(variable)) {
            (Some(name), _) => ("--trust", name.clone()),
            (None, Ok(name)) if !name.is_empty() => (variable, name),
            (None, _) => return Ok(Policy::default()),
        };
        Policy::from_name(&name).map_err(|text| Error::user(format!("{origin}: {text}")))
    }

    /// Starts the engine and finds plugins, for a command that reads and writes `files`, none of which the profile may
    /// replace.
    pub fn runtime(&self, files: &[&Path]) -> Result<Runtime> {
        if let Some(path) = &self.profile {
            name_of_file("--profile", path)?;
            if files.iter().any(|file| file == path || is_same_file(file, path)) {
                return Err(Error::user(format!(
                    "--profile `{}`: the command reads or writes this file itself; name another one",
                    path.display()
                )));
            }
        }
        let runtime = Runtime::new(RuntimeOptions {
            plugins: self.plugins.clone(),
            policy: self.policy()?,
            choose: self.choose.clone(),
            device: self.chosen()?,
            precision: self.compute.get(),
            ..RuntimeOptions::default()
        })?;
        if let Some((_, Some(why))) = engine_use()
            && self.device.is_some()
        {
            print::message(&format!("note: --device auto: computing on the CPU: {why}"));
        }
        if let Some(path) = &self.profile {
            self.recording.set(Some(runtime.profile(path, 0)?));
        }
        Ok(runtime)
    }

    /// Writes the trace, also after a command that failed, and prints the sums to standard error.
    pub fn finish(&self) -> Result<()> {
        if let Some(recording) = self.recording.take() {
            print::message(recording.finish()?.to_string().trim_end());
        }
        Ok(())
    }
}

/// How to read a data file.
#[derive(Args)]
pub struct Reading {
    /// Column with the text [default: the first with a usual name, such as text, sentence, content]
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// Column with the second text of a pair
    #[arg(long, value_name = "COLUMN")]
    text_pair: Option<String>,
    /// Names, types (str, int, float, base64) and lengths of the columns of a file without a header line:
    /// content:str:1,label:str:1
    #[arg(long, value_name = "NAME:TYPE:LENGTH,…")]
    schema: Option<String>,
    /// Format of the data
    #[arg(long, value_enum, default_value = "auto")]
    format: DataFormat,
    /// What to do with a row that does not fit
    #[arg(long, value_enum, default_value = "stop")]
    on_bad_row: BadRow,
}

/// The column of labels.
#[derive(Args)]
pub struct Label {
    /// Column with the label [default: the first with a usual name, such as label, class, score]
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
}

/// Metrics beside those of the app.
#[derive(Args)]
pub struct Metrics {
    /// A metric of any plugin, computed beside those of the app: NAME, PLUGIN/NAME, or with options
    /// {"name":"f-beta","beta":2}. May be repeated
    #[arg(long = "metric", value_name = "NAME", value_parser = metric)]
    pub metrics: Vec<Named>,
}

fn metric(text: &str) -> std::result::Result<Named, String> {
    if text.starts_with('{') {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    Ok(Named::plain(text))
}

/// What the linear layers of an encoder compute in.
#[derive(Args)]
pub struct Computing {
    /// What the linear layers of the encoder compute in; everything else is f32
    #[arg(long, value_enum, default_value = "f32")]
    precision: PredictPrecision,
}

#[derive(Clone, Copy, ValueEnum)]
enum PredictPrecision {
    /// Single precision
    F32,
    /// bfloat16: packed weights take half the memory of f32; meant for processors with AVX512_BF16
    Bf16,
    /// 8 bits, weights with a scale per output, activations with one per token; meant for processors with AVX512_VNNI
    Int8,
}

impl Computing {
    pub fn precision(&self) -> LayerPrecision {
        match self.precision {
            PredictPrecision::F32 => LayerPrecision::F32,
            PredictPrecision::Bf16 => LayerPrecision::Bf16,
            PredictPrecision::Int8 => LayerPrecision::Int8,
        }
    }
}

/// Formats of data.
#[derive(Clone, Copy, ValueEnum)]
pub enum DataFormat {
    /// By the name, else by the first line
    Auto,
    /// Tab-separated with a header line
    Tsv,
    /// Comma-separated with a header line, quotes as in RFC 4180; a first line `sep=;` sets another separator
    Csv,
    /// JSON objects, one per line or in an array
    #[value(alias = "json")]
    Jsonl,
    /// One text per line
    Text,
}

/// Formats of predictions.
#[derive(Clone, Copy, ValueEnum)]
pub enum PredictionFormat {
    /// Tab-separated with a header line; a text with a tab or a line break is an error
    Tsv,
    /// Comma-separated with a header line
    Csv,
    /// One JSON object per line
    Jsonl,
}

/// What to do with a bad row.
#[derive(Clone, Copy, ValueEnum)]
pub enum BadRow {
    /// End with an error that names file and line
    Stop,
    /// Leave it out and count it
    Skip,
}

impl From<PredictionFormat> for OutputFormat {
    fn from(format: PredictionFormat) -> OutputFormat {
        match format {
            PredictionFormat::Tsv => OutputFormat::Tsv,
            PredictionFormat::Csv => OutputFormat::Csv,
            PredictionFormat::Jsonl => OutputFormat::JsonLines,
        }
    }
}

/// Refuses `-` where only a file will do: it would be one of that name.
pub fn name_of_file(flag: &str, path: &Path) -> Result<()> {
    if path == Path::new("-") {
        let text = format!(
            "{flag}: expected the name of a file, found `-`; standard output is /dev/stdout"
        );
        return Err(Error::user(text));
    }
    Ok(())
}

/// Columns by role, of those that were named.
pub fn named<const N: usize>(roles: [(&str, &Option<String>); N]) -> BTreeMap<String, String> {
    roles
        .into_iter()
        .filter_map(|(role, column)| column.clone().map(|column| (role.to_owned(), column)))
        .collect()
}

impl Reading {
    /// Options of the reader.
    pub fn options(&self) -> Result<ReadOptions> {
        Ok(ReadOptions {
            format: match self.format {
                DataFormat::Auto => Format::Auto,
                DataFormat::Tsv => Format::Tsv,
                DataFormat::Csv => Format::Csv,
                DataFormat::Jsonl => Format::JsonLines,
                DataFormat::Text => Format::Text,
            },
            schema: self.schema.as_deref().map(Schema::parse).transpose()?,
            wanted: None,
            on_bad_row: match self.on_bad_row {
                BadRow::Stop => OnBadRow::Stop,
                BadRow::Skip => OnBadRow::Skip,
            },
        })
    }

    /// Columns that the user named, by role.
    pub fn named(&self, label: Option<&Label>) -> BTreeMap<String, String> {
        let label = label.and_then(|label| label.label.clone());
        named([("text", &self.text), ("text_pair", &self.text_pair), ("label", &label)])
    }

    /// The file at `path`, read in this way.
    pub fn file(&self, path: &Path, label: Option<&Label>) -> Result<DataSource> {
        Ok(DataSource { data: path.into(), read: self.options()?, named: self.named(label) })
    }
}
