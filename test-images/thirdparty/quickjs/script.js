// Work for a real JavaScript engine: big integers, closures, generators, JSON, sorting, regexes.
function* primes() {
    const seen = [];
    for (let n = 2; ; n++) {
        if (seen.every((p) => n % p !== 0)) {
            seen.push(n);
            yield n;
        }
    }
}

function take(count, items) {
    const taken = [];
    for (const item of items) {
        taken.push(item);
        if (taken.length === count) return taken;
    }
}

// A seeded generator, since Math.random has no fixed sequence.
const random = ((state) => () => (state = (state * 1103515245 + 12345) % 2147483648))(42);

let factorial = 1n;
for (let i = 2n; i <= 40n; i++) factorial *= i;

console.log("primes", take(20, primes()).join(" "));
console.log("40!", factorial.toString());
console.log("sorted", Array.from({ length: 8 }, random).sort((a, b) => a - b).join(" "));
console.log("json", JSON.stringify({ text: "line\n\u00e9", list: [1, 2.5, null, { deep: [true] }] }));
console.log("regex", "2024-01-31 and 1999-12-25".replace(/(\d+)-(\d+)-(\d+)/g, "$3.$2.$1"));
console.log("map", [...new Map([["b", 2], ["a", 1]])].map(([k, v]) => `${k}=${v}`).join(" "));
console.log("float", (0.1 + 0.2).toFixed(17), Math.hypot(3, 4), Math.atan2(1, 2).toFixed(12));
try {
    null.property;
} catch (error) {
    console.log("caught", error instanceof TypeError);
}
Promise.resolve(6).then((n) => console.log("promise", n * 7));
