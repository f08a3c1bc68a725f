# Makes the inputs of the workloads where it stands: a tree with what trees have, a git repository
# with history, a C project, a crate, a Python package.
export TZ=UTC LC_ALL=C

mkdir tree
for dir in bin lib lib/deep/er share 'odd names'; do
    mkdir -p "tree/$dir"
    for n in $(seq 40); do
        seq "$n" $((n * 50)) >"tree/$dir/file-$n"
    done
done
head -c 3000000 /dev/urandom >tree/lib/big
truncate -s 5M tree/lib/sparse
printf tail >>tree/lib/sparse
: >tree/lib/empty
printf x >"tree/odd names/$(printf 'new\nline')"
printf x >"tree/odd names/  blanks  "
printf x >"tree/odd names/$(printf 'a%.0s' $(seq 255))"
ln tree/lib/file-1 tree/lib/hard-1
ln tree/lib/file-1 tree/lib/hard-2
ln -s file-1 tree/lib/soft
ln -s /nowhere/at/all tree/lib/dangling
mkfifo tree/share/fifo
chmod 4755 tree/bin/file-1
chmod 1777 tree/share
chmod 0400 tree/bin/file-2
setfattr -n user.origin -v here tree/bin/file-3
touch -d '1965-03-04 05:06:07.125' tree/bin/file-4
touch -d '2060-01-02 03:04:05.000000001' tree/bin/file-5
find tree -depth ! -name file-4 ! -name file-5 -exec touch -h -d '2024-05-06 07:08:09.123456789' {} +

export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
export GIT_CONFIG_GLOBAL=/dev/null
git init -q -b main history
for n in $(seq 30); do
    mkdir -p "history/dir-$((n % 5))"
    seq "$n" $((n * 20)) >"history/dir-$((n % 5))/file-$n"
    [ "$n" -lt 10 ] || git -C history rm -q "dir-$(((n - 5) % 5))/file-$((n - 5))"
    git -C history add .
    GIT_AUTHOR_DATE="2024-01-01T00:00:$n" GIT_COMMITTER_DATE="2024-01-01T00:00:$n" git -C history commit -q -m "change $n"
done
git -C history gc -q

mkdir -p project/src
cat >project/configure <<'SH'
#!/bin/sh
# the least that a build expects of one: --prefix, a probe, a config.h and a Makefile
prefix=/usr/local
for arg; do case $arg in --prefix=*) prefix=${arg#*=} ;; esac; done
src=$(dirname "$0")
echo 'int main(void) { return sizeof(long) == 8 ? 0 : 1; }' >conftest.c
cc -o conftest conftest.c
if ./conftest; then echo '#define LONG_IS_8 1' >config.h; else : >config.h; fi
rm -f conftest conftest.c
sed -e "s|@prefix@|$prefix|" -e "s|@srcdir@|$src|" "$src/Makefile.in" >Makefile
SH
chmod 755 project/configure
cat >project/Makefile.in <<'MAKE'
prefix = @prefix@
srcdir = @srcdir@
objects = main.o one.o two.o three.o
all: demo libdemo.a
%.o: $(srcdir)/src/%.c config.h
	$(CC) -O1 -I. -c -o $@ $<
libdemo.a: one.o two.o three.o
	$(AR) rcsD $@ $^
demo: main.o libdemo.a
	$(CC) -o $@ $^
install: all
	install -d $(prefix)/bin $(prefix)/lib $(prefix)/share/man/man1
	install -m 755 demo $(prefix)/bin/demo-1.0
	ln -sf demo-1.0 $(prefix)/bin/demo
	install -m 644 libdemo.a $(prefix)/lib/
	gzip -9n <$(srcdir)/demo.1 >$(prefix)/share/man/man1/demo.1.gz
MAKE
echo '.TH DEMO 1' >project/demo.1
for part in one two three; do
    printf '#include "config.h"\nint %s(int n) { return n + LONG_IS_8; }\n' $part >project/src/$part.c
done
printf '#include <stdio.h>\nint one(int), two(int), three(int);\nint main(void) { printf("%%d\\n", one(two(three(0)))); return 0; }\n' >project/src/main.c

mkdir -p crate/src
printf '[package]\nname = "demo"\nversion = "0.1.0"\nedition = "2021"\n\n[workspace]\n' >crate/Cargo.toml
echo 'pub fn double(n: u64) -> u64 { n * 2 }' >crate/src/lib.rs
echo 'fn main() { println!("{}", demo::double(21)); }' >crate/src/main.rs
printf 'version = 4\n\n[[package]]\nname = "demo"\nversion = "0.1.0"\n' >crate/Cargo.lock

mkdir package
/usr/bin/env python3 - <<'PY'
import zipfile
info = "demo-1.0.dist-info"
files = {f"demo/module_{n}.py": f"def f():\n    return {n}\n" for n in range(60)}
files["demo/__init__.py"] = ""
files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
files[f"{info}/entry_points.txt"] = "[console_scripts]\ndemo = demo.module_1:f\n"
record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
with zipfile.ZipFile("package/demo-1.0-py3-none-any.whl", "w") as wheel:
    for name, text in {**files, f"{info}/RECORD": record}.items():
        wheel.writestr(zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6)), text)
PY
