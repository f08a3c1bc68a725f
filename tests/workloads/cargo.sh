# A crate is built with its target directory here.
export CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never
unset CARGO_TARGET_DIR RUSTFLAGS
cp -a "$1/crate" crate
cd crate
cargo build --quiet --offline
[ "$(target/debug/demo)" = 42 ]
touch -d '+2 seconds' src/main.rs
cargo build --quiet --offline
# these remember when the run was
find target -path '*/.fingerprint/*' -name 'invoked.timestamp' -delete
rm -f target/.rustc_info.json target/debug/.cargo-lock
find target -name 'dep-*' -delete
