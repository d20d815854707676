/* The record of a plugin with one component, TABLE of KIND. */
static const void *component(const char *kind, size_t index) {
  return index == 0 && strcmp(kind, KIND) == 0 ? &TABLE : NULL;
}

static const et_plugin_record RECORD = {
    .magic = ET_PLUGIN_MAGIC,
    .abi_major = ET_ABI_MAJOR,
    .abi_minor = ET_ABI_MINOR,
    .struct_size = sizeof(et_plugin_record),
    .id = "under-check",
    .version = "0.1.0",
    .init = init,
    .component = component,
};

ET_EXPORT const et_plugin_record *et_plugin_entry(void) { return &RECORD; }
