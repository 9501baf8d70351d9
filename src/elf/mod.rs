//! ELF facts that a launch needs (machine, loader, SONAME) and the loader's cache (`ld.so.cache`). Pure.
