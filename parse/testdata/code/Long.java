package org.example;

import java.util.List;

/**
 * A long class.
 */
public class Long {

    /** Method number 0. */
    public int method0(int x) {
        int y = x + 0;

        return y * 2;
    }

    /** Method number 1. */
    public int method1(int x) {
        int y = x + 1;

        return y * 2;
    }

    /** Method number 2. */
    public int method2(int x) {
        int y = x + 2;

        return y * 2;
    }

    /** Method number 3. */
    public int method3(int x) {
        int y = x + 3;

        return y * 2;
    }

    /** Method number 4. */
    public int method4(int x) {
        int y = x + 4;

        return y * 2;
    }

    /** Method number 5. */
    public int method5(int x) {
        int y = x + 5;

        return y * 2;
    }

    /** Method number 6. */
    public int method6(int x) {
        int y = x + 6;

        return y * 2;
    }

    /** Method number 7. */
    public int method7(int x) {
        int y = x + 7;

        return y * 2;
    }

    /** Method number 8. */
    public int method8(int x) {
        int y = x + 8;

        return y * 2;
    }

    /** Method number 9. */
    public int method9(int x) {
        int y = x + 9;

        return y * 2;
    }

    /** Method number 10. */
    public int method10(int x) {
        int y = x + 10;

        return y * 2;
    }

    /** Method number 11. */
    public int method11(int x) {
        int y = x + 11;

        return y * 2;
    }

    /** Method number 12. */
    public int method12(int x) {
        int y = x + 12;

        return y * 2;
    }

    /** Method number 13. */
    public int method13(int x) {
        int y = x + 13;

        return y * 2;
    }

    /** Method number 14. */
    public int method14(int x) {
        int y = x + 14;

        return y * 2;
    }

    /** Method number 15. */
    public int method15(int x) {
        int y = x + 15;

        return y * 2;
    }

    /** Method number 16. */
    public int method16(int x) {
        int y = x + 16;

        return y * 2;
    }

    /** Method number 17. */
    public int method17(int x) {
        int y = x + 17;

        return y * 2;
    }

    /** Method number 18. */
    public int method18(int x) {
        int y = x + 18;

        return y * 2;
    }

    /** Method number 19. */
    public int method19(int x) {
        int y = x + 19;

        return y * 2;
    }

    /** Method number 20. */
    public int method20(int x) {
        int y = x + 20;

        return y * 2;
    }

    /** Method number 21. */
    public int method21(int x) {
        int y = x + 21;

        return y * 2;
    }

    /** Method number 22. */
    public int method22(int x) {
        int y = x + 22;

        return y * 2;
    }

    /** Method number 23. */
    public int method23(int x) {
        int y = x + 23;

        return y * 2;
    }
}
