# A C project is configured, built out of its tree and in it, and installed in place.
mkdir build
(cd build && "$1/project/configure" --prefix="$PWD/../opt" && make -j4 && make install)
cp -a "$1/project" in-tree
(cd in-tree && ./configure --prefix="$PWD/../opt-2" && make -j4 install)
[ "$(opt/bin/demo)" = 3 ]
[ "$(opt-2/bin/demo)" = 3 ]
make -C build clean 2>/dev/null || rm -f build/*.o
