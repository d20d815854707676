/*
 * easytransfer.h: EasyTransfer for programs in C and C++.
 *
 * GENERATED from the Rust crate capi by `cargo xtask header`. Do not edit.
 *
 * Link libeasytransfer. C++ authors may prefer easytransfer.hpp, a wrapper over this file.
 *
 * Conventions are those of easytransfer_plugin.h: arguments are borrowed, an out pointer receives
 * one owned reference for the matching release function, release functions accept NULL, functions
 * that can fail return et_error* (NULL for success) and leave every out untouched on error, text
 * is UTF-8 as et_str, no panic crosses.
 *
 * Licensed under the Apache License, Version 2.0.
 */
#ifndef EASYTRANSFER_H
#define EASYTRANSFER_H

#include "easytransfer_plugin.h"

#ifdef __cplusplus
extern "C" {
#endif



#ifdef __cplusplus
}
#endif

#endif /* EASYTRANSFER_H */
