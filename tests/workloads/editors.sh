# What editors and sed do: write beside and rename over, keep backups, write in place.
cp "$1"/tree/lib/file-* .
sed -i 's/1/one/g' file-1 file-2
sed -i.bak 's/2/two/g' file-3
sed -i 's/^/# /' file-3
# vim with backupcopy=no: the old one is renamed away, the new one written under the name
mv file-4 file-4~ && seq 9 >file-4 && rm file-4~
# vim with backupcopy=yes: copied, written in place, truncated
cp -p file-5 file-5~ && seq 3 >file-5
# emacs: the first save renames, later ones write in place
mv file-6 file-6~ && cp file-6~ file-6 && echo more >>file-6
# an atomic save with fsync, through a temporary name
python3 - <<'PY'
import os
for n in range(200):
    with open(f".file-7.{n}", "w") as f:
        f.write(f"version {n}\n")
        f.flush()
        if n % 20 == 0:
            os.fsync(f.fileno())
    os.rename(f".file-7.{n}", "file-7")
PY
[ "$(cat file-7)" = "version 199" ]
# a lock file, a swap file, and a link made to the old one
ln -s user@host.1:1 .#file-8 && rm .#file-8
ln file-9 file-9.orig && sed -i 's/9/nine/' file-9
