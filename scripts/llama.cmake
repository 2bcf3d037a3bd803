# CMake settings for llama.cpp, included after its project() by way of .cargo/config.toml. They more than halve its build.
#
# `common` is the library of llama.cpp's own programs (arguments, chat templates, JSON, an HTTP client): 54 of 128 files,
# among them the slowest to compile. llama-cpp-sys-2 switches it on by default, Wattgate calls none of it, and the linker
# drops what is not called.
set(LLAMA_BUILD_COMMON OFF CACHE BOOL "" FORCE)
# Line tables for Rust (Cargo.toml) would otherwise mean `-O2 -g` here: twice the size, and slower to compile and to run.
set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
