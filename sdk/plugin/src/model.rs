//! Models: encoders and other networks below the head.

use crate::component::{
    Call, ComponentRef, Instance, Loaded, create, invoke, invoke_text, parse, put_text, take_turn,
};
use crate::own::{Given, by_closure};
use crate::text::borrow;
use crate::{Activation, Cache, HeadLayer, Map, Result, Scope};
use easytransfer_abi as abi;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::sync::Mutex;

/// What the trainer and the apps must know about a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelInfo {
    /// Width of "last" and of "pooled".
    pub hidden_size: usize,
    /// Number of layers; "hidden_states/0" is below the first and "hidden_states/layers" above the last.
    pub layers: usize,
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Columns of the token embedding ("embeddings.word_embeddings.weight"), to which heads of language models are
    /// tied.
    pub embedding_size: usize,
    /// Activation between the layers.
    pub activation: Activation,
    /// The small number of the layer norms.
    pub layer_norm_eps: f64,
    /// Longest run in tokens.
    pub max_positions: usize,
    /// Name under which Hugging Face checkpoints with a head keep the encoder, for instance "bert".
    pub base_prefix: String,
    /// Class of the bare Hugging Face model, for config.json.
    pub class: String,
    /// Heads that Hugging Face checkpoints of this model may have, by task: "sequence-classification", "masked-lm",
    /// "question-answering", "token-classification".
    pub tasks: BTreeMap<String, Task>,
    /// Probability of dropout before the classification head.
    pub classifier_dropout: f64,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Whether the model offers "pooled".
    pub pooled: bool,
    /// Beginnings of names in checkpoints that this model legitimately does not use, for instance "cls.".
    pub ignore: Vec<String>,
    /// Name of each layer's scope in order, lowest first, the embeddings at index 0: for layer-wise rates and
    /// freezing. A scope whose parameters several layers share stands at each of them and counts to the highest.
    pub depth: Vec<String>,
    /// Scopes of the model besides those of `depth`, each with the depth to which it counts: a projection behind the
    /// embeddings at 0, a pooler above the last of N layers at N + 1.
    pub beside: Vec<(String, usize)>,
    /// Scope of the parameters that only "pooled" needs; empty when there are none.
    pub pooler: String,
    /// Token with which a decoder's run begins, for a model that has a decoder.
    pub decoder_start: Option<i64>,
    /// Tokens that end a run which the model continues.
    pub eos: Vec<i64>,
    /// Fields of a row (F32) that the model can read besides its tokens, with the most numbers of each: the patches of
    /// an image.
    pub inputs: BTreeMap<String, usize>,
    /// What the model writes beyond the outputs of all models, where its `inputs` are there: those of its own heads.
    pub outputs: Vec<String>,
}

/// A head that checkpoints of a model may have, with the encoder under [`ModelInfo::base_prefix`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    /// Class of the Hugging Face model, for config.json.
    pub class: String,
    /// Layers and names of the head, as a name that apps know: "bert", "roberta", "distilbert", "electra", "albert".
    pub form: String,
    /// The layers themselves, from the model's "last" on, where no form says them.
    pub layers: Vec<HeadLayer>,
}

impl ModelInfo {
    /// Whether only "pooled" needs the parameter of this name.
    pub fn is_pooler(&self, name: &str) -> bool {
        !self.pooler.is_empty()
            && name.strip_prefix(&*self.pooler).is_some_and(|rest| rest.starts_with('.'))
    }

    /// Depth of a parameter of the model: 0 for the embeddings, k for layer k of N from 1, N + 1 for what lies above.
    /// Nothing for a parameter that is not the model's, which is the head's. Whoever must tell the model from its
    /// head asks here.
    pub fn depth_of(&self, name: &str) -> Option<usize> {
        // A parameter may stand at the root, as XLNet's "mask_emb"; then its name is the scope.
        let is_in = |scope: &str| {
            let rest = name.strip_prefix(scope);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.depth
            .iter()
            .rposition(|scope| is_in(scope))
            .or_else(|| self.beside.iter().find(|(scope, _)| is_in(scope)).map(|(_, depth)| *depth))
    }
}

/// A model. Parameter names are those of Hugging Face checkpoints without the base prefix.
pub trait Model: Send + Sized + 'static {
    /// Name users write: the `model_type` of the configuration.
    const NAME: &'static CStr;
    /// JSON Schema of the configuration.
    const SCHEMA: &'static CStr = crate::NO_OPTIONS;
    /// The configuration: what config.json holds.
    type Config: DeserializeOwned;

    /// Declares the parameters in `scope`. As written, an error: for those that a program makes by a closure.
    fn new(config: Self::Config, scope: &Scope) -> Result<Self> {
        let _ = (config, scope);
        Err(by_closure(Self::NAME))
    }

    /// What others must know about it.
    fn info(&self) -> ModelInfo;

    /// Reads "ids", "positions", "starts" and, where it has them, "segments"; writes "last" [T, h], and "pooled" [B,
    /// h] and "hidden_states/k" [T, h] when wanted. A model that can continue its runs writes "logits" when wanted,
    /// and keeps what it reads in [`Call::cache`] where there is one. A model that predicts over permutations also
    /// reads "order" and "key_order" [T], and "target/places" [M] with "target/starts", and writes "target/last" [M,
    /// h] (`docs/families/xlnet.md`).
    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()>;
}

/// The C table of a model.
#[doc(hidden)]
pub struct ModelTable<T>(std::marker::PhantomData<T>);

impl<T: Model> ModelTable<T> {
    #[doc(hidden)]
    pub const TABLE: &'static abi::et_plugin_model = &abi::et_plugin_model {
        struct_size: size_of::<abi::et_plugin_model>(),
        name: T::NAME.as_ptr(),
        schema: T::SCHEMA.as_ptr(),
        create: Some(Self::create),
        describe: Some(Self::describe),
        forward: Some(Self::forward),
        release: Some(Instance::<T>::release),
    };

    unsafe extern "C" fn create(
        config: abi::et_str,
        scope: *const abi::et_scope,
        out: *mut *mut c_void,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes valid text, a live scope and a valid out.
        unsafe {
            Instance::create(out, || {
                T::new(parse(T::NAME, config)?, &*Scope::lend(scope.cast_mut())?)
            })
        }
    }

    unsafe extern "C" fn describe(
        instance: *mut c_void,
        out: *mut *mut abi::et_buffer,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a valid out.
        unsafe {
            Instance::<T>::with_mut(instance, |model| {
                put_text(out, &serde_json::to_string(&model.info())?)
            })
        }
    }

    unsafe extern "C" fn forward(
        instance: *mut c_void,
        call: *const abi::et_call,
        batch: *const abi::et_map,
        outputs: *mut abi::et_map,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and live maps.
        unsafe {
            Instance::<T>::with_mut(instance, |model| {
                Call::enter(call, |call| {
                    let batch = Map::lend(batch.cast_mut())?;
                    let mut outputs = Map::lend_mut(outputs)?;
                    model.forward(call, &batch, &mut outputs)?;
                    call.cache().map_or(Ok(()), Cache::finish)
                })
            })
        }
    }
}

/// A model from a registry, as the host uses it. Threads that share it take turns in it.
pub struct LoadedModel {
    loaded: Loaded<abi::et_plugin_model>,
    /// Held while a slot is called: the contract says one at a time.
    turn: Mutex<()>,
    info: ModelInfo,
}

// SAFETY: whoever calls a slot with `&self` holds `turn`.
unsafe impl Sync for LoadedModel {}

impl LoadedModel {
    /// Kind, name and plugin, as messages have them.
    pub fn who(&self) -> &str {
        &self.loaded.what
    }

    /// Declares the parameters in `scope` and makes an instance; `config` is JSON.
    pub fn create(component: &ComponentRef, config: &str, scope: &Scope) -> Result<Self> {
        let loaded = create!(
            component,
            "et.model/1",
            et_plugin_model(borrow(config), scope.as_raw()),
            Given { options: config, scope: Some(scope), ..Given::default() }
        );
        let info = loaded.read("describe", &invoke_text!(loaded, et_plugin_model.describe())?)?;
        Ok(Self { loaded, turn: Mutex::new(()), info })
    }

    /// What the model says of itself.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Runs the model; see [`Model::forward`].
    pub fn forward(&self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let call = call.raw();
        let _turn = take_turn(&self.turn);
        invoke!(self.loaded, et_plugin_model.forward(&call, batch.as_raw(), outputs.as_raw()))
    }
}
