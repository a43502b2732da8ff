#!/usr/bin/env bash
# Print the path of a free-threaded CPython, and make one if there is none.
#
# free-threaded.sh        PYTHON_FT, or else a python3.14t or python3.13t on PATH, or else one that
#                         is built
# free-threaded.sh nogil  the one that is built, whatever else there is
# free-threaded.sh gil    the same CPython, built alike but with a GIL, to compare
# free-threaded.sh tsan   the same without a GIL, under ThreadSanitizer
#
# What is built is CPython 3.13 from the source package of Debian trixie, which apt fetches and
# verifies by Debian's keyring; it is kept in .cache/. MAKEFLAGS says how many compilers run at
# once. It takes 3 minutes with two, and 600 MB while it lasts.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "free-threaded.sh: $*" >&2
	exit 1
}

is_free_threaded() {
	"$1" -c 'import sysconfig; raise SystemExit(not sysconfig.get_config_var("Py_GIL_DISABLED"))'
}

case ${1-} in
"")
	if [ -n "${PYTHON_FT-}" ]; then
		if found=$(command -v "$PYTHON_FT") && is_free_threaded "$found"; then
			echo "$found"
			exit
		fi
		fail "PYTHON_FT=$PYTHON_FT is no free-threaded Python"
	fi
	for python in python3.14t python3.13t; do
		if found=$(command -v $python) && is_free_threaded "$found"; then
			echo "$found"
			exit
		fi
	done
	;;
nogil | gil | tsan) ;;
*) fail "what is $1? There are nogil, gil, tsan, and no argument" ;;
esac

case ${1-nogil} in
gil)
	name=python3.13
	flags=()
	;;
tsan)
	name=python3.13t-tsan
	flags=(--disable-gil --with-thread-sanitizer)
	;;
*)
	name=python3.13t
	flags=(--disable-gil)
	;;
esac

prefix=$PWD/.cache/$name
python=$prefix/bin/${name%-tsan}
if [ -x "$python" ]; then
	echo "$python"
	exit
fi

# -- What is needed -----------------------------------------------------------

for program in apt-get dpkg-query gcc make pkg-config tar xz; do
	command -v $program >/dev/null ||
		fail "$program is missing; on Debian: apt-get install gcc make pkgconf tar xz-utils." \
			"Elsewhere name a free-threaded Python in PYTHON_FT."
done
missing=()
for package in libbz2-dev libffi-dev liblzma-dev libsqlite3-dev libssl-dev zlib1g-dev; do
	# shellcheck disable=SC2016 # dpkg-query has variables of its own
	dpkg-query -W -f '${db:Status-Abbrev}' $package 2>/dev/null | grep -q '^ii' ||
		missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] || fail "missing; apt-get install ${missing[*]}"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || fail "$keyring is missing; apt-get install debian-archive-keyring"

# -- Fetch the source -----------------------------------------------------------
# With lists of its own, so that the machine's apt stays as it is; the mirror is the machine's.

sources=$PWD/.cache/python3.13-source
if [ ! -e "$sources/fetched" ]; then
	rm -rf "$sources"
	mkdir -p "$sources/lists/partial" "$sources/cache/archives/partial"
	# shellcheck disable=SC2016 # and so has apt-get
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' |
		sort -u | head -n 1)
	[ -n "$mirror" ] || fail "this machine's apt has no mirror of Debian; set PYTHON_FT"
	echo "deb-src [signed-by=$keyring] $mirror trixie main" >"$sources/trixie.list"
	apt=(
		apt-get -q
		-o "Dir::Etc::SourceList=$sources/trixie.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$sources/lists" -o "Dir::Cache=$sources/cache"
		-o "APT::Sandbox::User=$(id -un)"
	)
	"${apt[@]}" update >&2
	(cd "$sources" && "${apt[@]}" source --download-only python3.13 >&2)
	touch "$sources/fetched"
fi

# -- Build it -----------------------------------------------------------------
# From upstream's tarball: Debian's patches put files where only Debian wants them.

build=$PWD/.cache/build-$name
rm -rf "$build"
mkdir -p "$build"
tar -xJf "$sources"/python3.13_*.orig.tar.xz --strip-components=1 -C "$build"
echo "building $name: the log is $build.log" >&2
(
	cd "$build"
	# ThreadSanitizer ends what it found races in, and CPython 3.13 has some.
	export TSAN_OPTIONS=report_bugs=0
	./configure -q --prefix="$prefix" --disable-test-modules "${flags[@]+"${flags[@]}"}"
	MAKEFLAGS=${MAKEFLAGS:--j2} make -s
	make -s install DESTDIR="$build/installed"
) >"$build.log" 2>&1 || {
	tail -n 30 "$build.log" >&2
	fail "could not build $name"
}
rm -rf "$prefix"
mv "$build/installed$prefix" "$prefix"
rm -r "$build"
echo "$python"
