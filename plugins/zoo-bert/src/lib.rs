//! zoo-bert
