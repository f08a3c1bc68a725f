# A build with thousands of short-lived files, in several processes.
work() {
    python3 - "$1" <<'PY'
import os, sys
me = int(sys.argv[1])
os.makedirs(f"out/{me}", exist_ok=True)
for n in range(800):
    temp = f"tmp-{me}-{n}"
    with open(temp, "w") as f:
        f.write(f"{me} {n}\n" * 50)
    if n % 3 == 0:
        os.rename(temp, f"out/{me}/{n}")
    elif n % 3 == 1:
        fd = os.open(temp, os.O_RDWR)
        os.unlink(temp)
        os.write(fd, b"nobody sees this")
        os.close(fd)
    else:
        os.makedirs(f"{temp}.d/deep")
        os.rename(temp, f"{temp}.d/deep/file")
        os.unlink(f"{temp}.d/deep/file")
        os.removedirs(f"{temp}.d/deep")
PY
}
touch keep
for n in 1 2 3 4; do work $n & done
wait
[ "$(find . -type f | wc -l)" = $((4 * 267 + 1)) ]
[ -z "$(find . -name 'tmp-*')" ]
