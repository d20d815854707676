//! tl-finetune
