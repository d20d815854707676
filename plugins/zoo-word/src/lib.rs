//! Models of words, which begin without a checkpoint: the vocabulary comes from the training data, and the vectors of
//! its words from a file if one is named.
//!
//! Encoders of a text: TextCNN (Kim 2014), BiLSTM, BiGRU with attention (Yang et al. 2016). Networks over a pair of
//! texts, which they read as the segments 0 and 1 of one row: DAM (Parikh et al. 2016), DAM+, BiCNN and HCNN (Qiu et
//! al. 2018), as EasyTransfer of 2020 had them, but for its defects (`docs/families/word.md`).
#![forbid(unsafe_code)]

mod bicnn;
mod conv;
mod dam;
mod hcnn;
mod options;
mod recurrent;
mod runs;
mod text_cnn;
mod vectors;
mod words;

easytransfer_plugin::export! {
    id: "zoo-word",
    models: [
        text_cnn::TextCnn,
        recurrent::BiLstm,
        recurrent::BiGruAttention,
        dam::Dam,
        dam::DamPlus,
        bicnn::BiCnn,
        hcnn::Hcnn,
    ],
}
