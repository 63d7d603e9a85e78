// Work for Go's runtime and compiler: garbage, maps, sorting, interfaces, channels, formatting.
package main

import (
	"fmt"
	"hash/fnv"
	"os"
	"sort"
	"strconv"
	"strings"
)

type tree struct{ left, right *tree }

func build(depth int) *tree {
	if depth == 0 {
		return &tree{}
	}
	return &tree{build(depth - 1), build(depth - 1)}
}

func (t *tree) count() int {
	if t.left == nil {
		return 1
	}
	return 1 + t.left.count() + t.right.count()
}

type shape interface{ area() float64 }
type square struct{ side float64 }
type circle struct{ radius float64 }

func (s square) area() float64 { return s.side * s.side }
func (c circle) area() float64 { return 3.14159 * c.radius * c.radius }

func words(n int) map[string]int {
	counts := map[string]int{}
	state := uint32(1)
	for range n {
		state = state*1103515245 + 12345
		counts["w"+strconv.Itoa(int(state>>8)%5000)]++
	}
	return counts
}

func shapes(n int) float64 {
	var all []shape
	for i := range n {
		if i%3 == 0 {
			all = append(all, circle{float64(i % 17)})
		} else {
			all = append(all, square{float64(i % 13)})
		}
	}
	sum := 0.0
	for range 20 {
		for _, s := range all {
			sum += s.area()
		}
	}
	return sum
}

func pipeline(n int) int {
	numbers, squares := make(chan int), make(chan int, 16)
	go func() {
		for i := range n {
			numbers <- i
		}
		close(numbers)
	}()
	go func() {
		for x := range numbers {
			squares <- x * x % 1009
		}
		close(squares)
	}()
	sum := 0
	for x := range squares {
		sum += x
	}
	return sum
}

func text(n int) uint32 {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%05d %-8s|%8.3f|%x\n", i, strings.Repeat("ab", i%4), float64(i)/7, i*i)
	}
	h := fnv.New32a()
	for _, field := range strings.Fields(b.String()) {
		h.Write([]byte(strings.ToUpper(field)))
	}
	return h.Sum32()
}

func main() {
	rounds := 4
	if len(os.Args) > 1 {
		rounds, _ = strconv.Atoi(os.Args[1])
	}
	for range rounds {
		total := 0
		for depth := 4; depth <= 14; depth++ {
			total += build(depth).count()
		}
		counts := words(60000)
		keys := make([]string, 0, len(counts))
		for key := range counts {
			keys = append(keys, key)
		}
		sort.Slice(keys, func(i, j int) bool {
			a, b := keys[i], keys[j]
			return counts[a] > counts[b] || counts[a] == counts[b] && a < b
		})
		fmt.Println(total, len(keys), keys[0], keys[len(keys)-1], shapes(20000), pipeline(20000), text(12000))
	}
}
