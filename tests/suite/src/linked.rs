//! The plugins of this tree linked into the test program: the same sources.

use easytransfer::{Runtime, RuntimeOptions};

macro_rules! link {
    ($($name:ident = $path:literal),* $(,)?) => {
        $(
            #[path = $path]
            #[allow(missing_docs, unexpected_cfgs, reason = "the plugin's own file, checked in its own crate")]
            pub mod $name;
        )*

        /// A runtime whose only plugins are the linked ones.
        pub fn runtime() -> Runtime {
            let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
            let runtime = Runtime::new(options).expect("the engine starts");
            $(
                runtime.register_plugin($name::PluginRecord::get()).expect(stringify!($name));
            )*
            runtime
        }
    };
}

link! {
    zoo_bert = "../../../plugins/zoo-bert/src/lib.rs",
    zoo_t5 = "../../../plugins/zoo-t5/src/lib.rs",
    zoo_imagebert = "../../../plugins/zoo-imagebert/src/lib.rs",
    zoo_word = "../../../plugins/zoo-word/src/lib.rs",
    zoo_modernbert = "../../../plugins/zoo-modernbert/src/lib.rs",
    zoo_deberta = "../../../plugins/zoo-deberta/src/lib.rs",
    zoo_xlnet = "../../../plugins/zoo-xlnet/src/lib.rs",
    app_classify = "../../../plugins/app-classify/src/lib.rs",
    app_comprehend = "../../../plugins/app-comprehend/src/lib.rs",
    app_embed = "../../../plugins/app-embed/src/lib.rs",
    app_generate = "../../../plugins/app-generate/src/lib.rs",
    app_match = "../../../plugins/app-match/src/lib.rs",
    app_pretrain = "../../../plugins/app-pretrain/src/lib.rs",
    loss_basic = "../../../plugins/loss-basic/src/lib.rs",
    optim_basic = "../../../plugins/optim-basic/src/lib.rs",
    tl_adversarial = "../../../plugins/tl-adversarial/src/lib.rs",
    tl_finetune = "../../../plugins/tl-finetune/src/lib.rs",
    tl_distill = "../../../plugins/tl-distill/src/lib.rs",
}
